"""Pure functions of margin: collateral, requirement, margin, liquidation, waterfall, oracle. Never holds state."""

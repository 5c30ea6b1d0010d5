"""Variables of the environment that are no settings."""

CONFIG_VARIABLE = "RETICULA_CONFIG"  # the settings file; children inherit it

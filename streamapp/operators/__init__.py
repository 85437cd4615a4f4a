"""Reactive operators: small steps with explicit state that compose into what an agent watches for."""

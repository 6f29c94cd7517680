"""What every RPC goes through: bounds on messages, error translation, pagination."""

"""From accepted messages to customers: identity, state, stages and segments; and the replay that repairs them."""

"""Who somebody is to the control plane, and what they may do: roles, credentials, sessions, signing in."""

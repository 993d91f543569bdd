"""Training: losses, optimisers and their schedules, truncated backpropagation, the flow of gradients."""

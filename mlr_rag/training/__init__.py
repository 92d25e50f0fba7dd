"""Training: losses, lists, mining, teachers and the trainer."""

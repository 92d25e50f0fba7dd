"""Multi-level distillation: our own reading of the abstract of MD2PR (arXiv 2312.16821)."""

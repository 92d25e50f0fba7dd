"""`python -m mlr_rag`: the same as `mlr-rag`."""

from mlr_rag.cli import main

if __name__ == "__main__":
    main()

"""The report of a specialization: its values (data.py), and their JSON, HTML and Markdown (writing.py)."""

"""Filters, updates and the async twins."""

import asyncio

from mlr_rag import Document, Retriever


async def main() -> None:
    async with await Retriever.aopen("memory:") as kb:
        await kb.aadd(
            Document(f"Release {year}: {text}", id=str(year), metadata={"year": year, "tags": tags})
            for year, text, tags in [
                (2019, "the first version", ["old"]),
                (2022, "faster search", ["performance"]),
                (2024, "filters and async", ["features", "performance"]),
            ]
        )
        recent = await kb.asearch("What became quicker?", filter={"year": {"$gte": 2020}})
        print([hit.document.id for hit in recent])
        tagged = await kb.asearch("news", filter={"tags": {"$contains": "features"}}, k=1)
        print(tagged[0].document.text)
        print((await kb.aadd(Document("Release 2022: much faster search", id="2022"))).updated, "updated")


asyncio.run(main())

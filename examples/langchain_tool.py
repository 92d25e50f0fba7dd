"""The knowledge base as a tool that an agent may call."""

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import create_retriever_tool

from mlr_rag import Retriever

FACTS = ["Scurvy is caused by a lack of vitamin C.", "Water boils at 100 degrees Celsius.", "Paris is in France."]
CALL = {"name": "search_notes", "args": {"query": "Why did sailors eat lemons?"}, "id": "1"}

with Retriever.open("./kb") as kb:
    kb.add(FACTS)
    tool = create_retriever_tool(kb.as_langchain(k=1), "search_notes", "Search the notes on health and science.")
    # A real one goes here: ChatOpenAI().bind_tools([tool]), or langchain's create_agent(model, [tool]).
    model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=[CALL]), AIMessage("To prevent scurvy.")]))
    messages = [HumanMessage("Why did sailors eat lemons?")]
    while (answer := model.invoke(messages)).tool_calls:
        messages += [answer, *(tool.invoke({**call, "type": "tool_call"}) for call in answer.tool_calls)]
        print("the tool found:", messages[-1].content)
    print(answer.content)

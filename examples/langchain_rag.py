"""A question answered from your documents: retrieval-augmented generation as a LangChain chain."""

from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from mlr_rag import Retriever

FACTS = [
    "Scurvy is caused by a lack of vitamin C, and lemons have plenty of it.",
    "Water boils at 100 degrees Celsius at sea level.",
    "Paris is the capital of France.",
]
# A real one goes here: any chat model of LangChain's, such as ChatOpenAI() or ChatOllama(model="llama3.2").
model = FakeListChatModel(responses=["They prevented scurvy."])
prompt = ChatPromptTemplate.from_template("Answer from these notes only:\n{notes}\n\nQuestion: {question}")

with Retriever.open("./kb") as kb:
    kb.add(FACTS)
    notes = kb.as_langchain(k=2) | (lambda found: "\n".join(document.page_content for document in found))
    question = "Why did sailors eat lemons?"
    asked = {"notes": notes, "question": RunnablePassthrough()} | prompt
    print(asked.invoke(question).to_string())
    print((asked | model | StrOutputParser()).invoke(question))

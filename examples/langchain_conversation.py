"""A conversation: each question is made to stand alone before it is searched for."""

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from mlr_rag import Retriever

FACTS = ["Paris is the capital of France.", "Lyon is known for its food.", "Bern is the capital of Switzerland."]
# Real ones go here: any chat model of LangChain's, such as ChatOpenAI(), for both.
rewriter = FakeListChatModel(responses=["What is the capital of Switzerland?"])
answerer = FakeListChatModel(responses=["Paris.", "Bern."])
history = MessagesPlaceholder("history")
alone = ChatPromptTemplate.from_messages([history, ("user", "{question}\n\nRewrite this to stand alone.")])
answer = ChatPromptTemplate.from_messages([("system", "Notes:\n{notes}"), history, ("user", "{question}")])

with Retriever.open("./kb") as kb:
    kb.add(FACTS)
    retriever, talk = kb.as_langchain(k=1), []
    for question in ("What is the capital of France?", "And of Switzerland?"):
        asked = {"history": talk, "question": question}
        query = (alone | rewriter | StrOutputParser()).invoke(asked) if talk else question
        notes = retriever.invoke(query)[0].page_content
        said = (answer | answerer | StrOutputParser()).invoke({**asked, "notes": notes})
        print(f"{query} -> {notes} -> {said}")
        talk += [HumanMessage(question), AIMessage(said)]

"""Multi-layer representations: one vector from several layers, or one vector a layer."""

from mlr_rag import MLRModel

texts = ["Paris is the capital of France.", "Water boils at 100 degrees Celsius."]

model = MLRModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2", layers=(-3, -1))
print(model.layers, model.encode_document(texts).shape, model.encode_layers(texts).shape)

# A fresh model is its base: the layers' weights are learned, and start at the last layer.
print(model[1].weights().tolist())

several = MLRModel.from_pretrained("all-MiniLM-L6-v2", layers=(4, 5, 6), pooling="multi_vector")
scores = several.similarity(several.encode_query(["capital of France"]), several.encode_document(texts))
print(several.encode_document(texts).shape, scores.argmax().item())

model.save("my-model")  # safetensors; MLRModel.load reads it back, and runs no code from the folder
print(abs(MLRModel.load("my-model").encode_query(texts) - model.encode_query(texts)).max())

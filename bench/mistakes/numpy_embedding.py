"""A look-up of word vectors in NumPy; words repeat."""

import numpy as np
import torch

CHECK = "word_embedding_backward"
KWARGS = "dict(forward=word_embedding_forward, reference=torch_embedding)"


def inputs():
    return np.array([[0, 3, 3], [1, 0, 5]]), np.random.default_rng(38).standard_normal((6, 4))


def torch_embedding(x, W):
    return torch.nn.functional.embedding(x, W)


def word_embedding_forward(x, W):
    return W[x], (x, W.shape)


def word_embedding_backward(dout, cache):
    x, shape = cache
    dW = np.zeros(shape)
    np.add.at(dW, x, dout)
    # ~ index-overwrite: dW[x] += dout
    # ~ index-overwrite|overwritten-not-accumulated: dW[x] = dout
    # ~ upstream-dropped: np.add.at(dW, x, 1.0)
    # ~ missing-term|lost-path: np.add.at(dW, x[0], dout[0])
    # ~ wrong-scale: np.add.at(dW, x, dout / x.size)
    # ~ sign: np.subtract.at(dW, x, dout)
    # ~ missing-gradient (W):
    # = dW += np.eye(shape[0])[x.ravel()].T @ dout.reshape(-1, shape[1])
    # = dW = (x.reshape(-1) == np.arange(shape[0])[:, None]).astype(float) @ dout.reshape(-1, shape[1])
    return dW

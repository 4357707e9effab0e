"""Layers in NumPy that keep what they need in a dictionary, and return their gradients in a tuple."""

import numpy as np

CHECK = "Tagger()"


def inputs():
    rng = np.random.default_rng(63)
    return rng.integers(0, 11, (6, 5)), rng.integers(0, 3, (6,))


class Embedding:
    def __init__(self, n, d, rng):
        self.params = {"table": rng.standard_normal((n, d))}
        self.grads, self.cache = {}, {}

    def forward(self, ids):
        self.cache["ids"] = ids
        return self.params["table"][ids]

    def backward(self, dout):
        d = np.zeros_like(self.params["table"])
        np.add.at(d, self.cache["ids"], dout)
        # ~ index-overwrite|overwritten-not-accumulated: d[self.cache["ids"]] = dout
        # ~ index-overwrite|overwritten-not-accumulated: d[self.cache["ids"]] += dout
        self.grads["table"] = d
        # ~ sign: self.grads["table"] = -d


class MeanOverTime:
    def forward(self, x):
        self.shape = x.shape
        return x.mean(axis=1)

    def backward(self, dout):
        n, t, d = self.shape
        dx = np.repeat(dout.reshape(n, 1, d), t, axis=1) / t
        # ~ wrong-scale: dx = np.repeat(dout.reshape(n, 1, d), t, axis=1)
        # ~ wrong-scale: dx = np.repeat(dout.reshape(n, 1, d), t, axis=1) / n
        return dx
        # = return np.broadcast_to(dout.reshape(n, 1, d) / t, (n, t, d)).copy()


class Affine:
    def __init__(self, n_in, n_out, rng):
        self.params = {"W": rng.standard_normal((n_in, n_out)) / np.sqrt(n_in), "b": np.zeros(n_out)}
        self.grads, self.cache = {}, {}

    def forward(self, x):
        self.cache["x"] = x
        return x.dot(self.params["W"]) + self.params["b"]

    def backward(self, dout):
        self.grads["W"] = self.cache["x"].T.dot(dout)
        # ~ wrong-scale: self.grads["W"] = self.cache["x"].T.dot(dout) / dout.shape[0]
        self.grads["b"] = dout.sum(axis=0)
        # ~ wrong-scale: self.grads["b"] = dout.mean(axis=0)
        dx = dout.dot(self.params["W"].T)
        # ~ sign: dx = -dout.dot(self.params["W"].T)
        # ~ wrong-scale: dx = dout.dot(self.params["W"].T) / dout.shape[0]
        return dx


class Sigmoid:
    def forward(self, x):
        out = 1 / (1 + np.exp(-x))
        self.cache = {"out": out}
        return out

    def backward(self, dout):
        out = self.cache["out"]
        dx = dout * out * (1 - out)
        # ~ missing-factor: dx = dout
        # ~ missing-factor: dx = dout * out
        # ~ wrong-factor: dx = dout * out * (1 + out)
        # ~ upstream-dropped: dx = out * (1 - out)
        return dx


class SoftmaxCrossEntropy:
    def forward(self, scores, y):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        probs = e / e.sum(axis=1, keepdims=True)
        self.cache = (probs, y)
        return -np.log(probs[np.arange(len(y)), y]).mean()

    def backward(self):
        probs, y = self.cache
        d = probs.copy()
        d[np.arange(len(y)), y] -= 1
        # ~ missing-term|lost-path:
        d /= len(y)
        # ~ wrong-scale:
        # ~ sign: d /= -len(y)
        return d


class Tagger:
    def __init__(self):
        rng = np.random.default_rng(64)
        self.layers = [Embedding(11, 6, rng), MeanOverTime(), Affine(6, 8, rng), Sigmoid(), Affine(8, 3, rng)]
        self.loss = SoftmaxCrossEntropy()

    def forward(self, ids, y):
        x = ids
        for layer in self.layers:
            x = layer.forward(x)
        return self.loss.forward(x, y)

    def backward(self):
        d = self.loss.backward()
        for layer in self.layers[::-1]:
            d = layer.backward(d)
            # ~ wrong-scale: d = 2 * layer.backward(d) if layer is not self.layers[0] else layer.backward(d)

"""Convolution by im2col, pooling and flattening as NumPy layers; one parameter update at the end of the step."""

import numpy as np

CHECK = "LeNet()"


def inputs():
    rng = np.random.default_rng(65)
    return rng.standard_normal((3, 2, 8, 8)), rng.standard_normal((3, 4))


def im2col(x, k):
    n, c, h, w = x.shape
    oh, ow = h - k + 1, w - k + 1
    cols = np.zeros((n, c, k, k, oh, ow))
    for i in range(k):
        for j in range(k):
            cols[:, :, i, j] = x[:, :, i : i + oh, j : j + ow]
    return cols.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(cols, shape, k):
    n, c, h, w = shape
    oh, ow = h - k + 1, w - k + 1
    cols = cols.reshape(n, oh, ow, c, k, k).transpose(0, 3, 4, 5, 1, 2)
    x = np.zeros(shape)
    for i in range(k):
        for j in range(k):
            x[:, :, i : i + oh, j : j + ow] += cols[:, :, i, j]
            # ~ overwritten-not-accumulated|index-overwrite|lost-path: x[:, :, i : i + oh, j : j + ow] = cols[:, :, i, j]
    return x


class Conv:
    def __init__(self, c_in, c_out, k, rng):
        self.W = rng.standard_normal((c_out, c_in, k, k)) / k
        self.b = rng.standard_normal(c_out)
        self.k = k

    def forward(self, x):
        n, _, h, w = x.shape
        self.shape, self.cols = x.shape, im2col(x, self.k)
        out = self.cols @ self.W.reshape(len(self.W), -1).T + self.b
        return out.reshape(n, h - self.k + 1, w - self.k + 1, -1).transpose(0, 3, 1, 2)

    def backward(self, dout):
        d = dout.transpose(0, 2, 3, 1).reshape(-1, len(self.W))
        self.dW = (d.T @ self.cols).reshape(self.W.shape)
        # ~ wrong-scale: self.dW = (d.T @ self.cols).reshape(self.W.shape) / len(dout)
        self.db = d.sum(axis=0)
        # ~ wrong-scale: self.db = d.mean(axis=0)
        # ~ missing-gradient (b):
        dcols = d @ self.W.reshape(len(self.W), -1)
        # ~ sign: dcols = -d @ self.W.reshape(len(self.W), -1)
        return col2im(dcols, self.shape, self.k)


class ReLU:
    def forward(self, x):
        self.x = x
        return np.maximum(x, 0)

    def backward(self, dout):
        dout = dout.copy()
        dout[self.x < 0] = 0
        # ~ missing-factor|wrong-mask:
        # ~ wrong-mask: dout[self.x > 0] = 0
        return dout


class AvgPool:
    def forward(self, x):
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))

    def backward(self, dout):
        return dout.repeat(2, axis=2).repeat(2, axis=3) / 4
        # ~ wrong-scale: return dout.repeat(2, axis=2).repeat(2, axis=3)
        # ~ wrong-scale: return dout.repeat(2, axis=2).repeat(2, axis=3) / 2


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout):
        return dout.reshape(self.shape)


class Dense:
    def __init__(self, n_in, n_out, rng):
        self.W = rng.standard_normal((n_in, n_out)) / np.sqrt(n_in)
        self.b = rng.standard_normal(n_out)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        # ~ wrong-tensor|missing-gradient|upstream-dropped: self.dW = self.x.T @ np.ones_like(dout)
        self.db = dout.sum(axis=0)
        return dout @ self.W.T
        # ~ sign: return dout @ -self.W.T


class Mse:
    def forward(self, out, y):
        self.gap = out - y
        return np.sum(self.gap**2) / (2 * len(y))

    def backward(self):
        return self.gap / len(self.gap)
        # ~ wrong-scale: return self.gap
        # ~ sign: return -self.gap / len(self.gap)
        # ~ wrong-scale: return 2 * self.gap / len(self.gap)


class LeNet:
    def __init__(self):
        rng = np.random.default_rng(66)
        self.conv1, self.relu1, self.pool = Conv(2, 3, 3, rng), ReLU(), AvgPool()
        self.conv2, self.relu2, self.flat = Conv(3, 4, 2, rng), ReLU(), Flatten()
        self.fc, self.mse = Dense(16, 4, rng), Mse()

    def forward(self, x, y):
        x = self.pool.forward(self.relu1.forward(self.conv1.forward(x)))
        x = self.relu2.forward(self.conv2.forward(x))
        return self.mse.forward(self.fc.forward(self.flat.forward(x)), y)

    def backward(self):
        d = self.fc.backward(self.mse.backward())
        d = self.relu2.backward(self.flat.backward(d))
        # ~ missing-factor: d = self.flat.backward(d)
        d = self.conv2.backward(d)
        d = self.relu1.backward(self.pool.backward(d))
        # ~ wrong-scale: d = self.relu1.backward(self.pool.backward(d)) / len(d)
        self.conv1.backward(d)
        # ~ missing-gradient (conv1.W, conv1.b):

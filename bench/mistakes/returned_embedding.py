"""Word vectors, averaged and classified; tokens repeat, and the vectors are tied to the read-out."""
# ruff: noqa: F841

import torch

CHECK = "step"
LR = 0.5


def inputs():
    torch.manual_seed(11)
    tokens = torch.tensor([[0, 2, 2], [5, 2, 1], [3, 3, 3], [4, 0, 6]])
    return tokens, torch.tensor([1, 4, 6, 0]), torch.randn(7, 5), torch.randn(5, 5)


def step(tokens: torch.Tensor, target: torch.Tensor, emb: torch.Tensor, w: torch.Tensor) -> dict[str, torch.Tensor]:
    vectors = emb[tokens]  # (4, 3, 5)
    bag = vectors.mean(1)
    z = bag @ w
    act = z.sigmoid()
    # ~ inplace-corruption: act = z.sigmoid_()
    logits = act @ emb.T
    logp = logits.log_softmax(-1)
    loss = -logp.gather(1, target[:, None]).mean()

    onehot = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
    dlogits = (logp.exp() - onehot) / len(target)
    # ~ wrong-tensor|missing-factor: dlogits = (logp - onehot) / len(target)
    # ~ wrong-scale: dlogits = logp.exp() - onehot
    # ~ sign: dlogits = (onehot - logp.exp()) / len(target)
    # = dlogits = (logits.softmax(-1) - onehot) / len(target)
    demb = dlogits.T @ act
    # ~ wrong-tensor: demb = dlogits.T @ z
    # ~ lost-path|missing-term: demb = torch.zeros_like(emb)
    # ~ stale-parameter: demb = dlogits.T @ act ;; emb = emb - LR * demb
    dact = dlogits @ emb
    dz = dact * torch.sigmoid(z) * (1 - torch.sigmoid(z))
    # ~ double-applied|wrong-tensor: dz = dact * torch.sigmoid(act) * (1 - torch.sigmoid(act))
    # ~ wrong-factor: dz = dact * (1 - torch.sigmoid(z) ** 2)
    # ~ wrong-tensor|wrong-factor: dz = dact * z * (1 - z)
    # = dz = dact * act * (1 - act)
    dw = bag.T @ dz
    # ~ transposed: dw = dz.T @ bag
    # ~ wrong-tensor|missing-factor: dw = bag.T @ dact
    dbag = dz @ w.T
    # ~ transposed: dbag = dz @ w
    dvectors = (dbag / tokens.shape[1])[:, None, :].expand_as(vectors)
    # ~ wrong-scale: dvectors = dbag[:, None, :].expand_as(vectors)
    # ~ wrong-scale: dvectors = (dbag / tokens.shape[0])[:, None, :].expand_as(vectors)
    demb = demb.index_add(0, tokens.flatten(), dvectors.flatten(0, 1))
    # ~ lost-path:
    # ~ overwritten-not-accumulated|lost-path: demb = torch.zeros_like(emb).index_add(0, tokens.flatten(), dvectors.flatten(0, 1))
    # ~ index-overwrite: demb[tokens] += dvectors
    # ~ index-overwrite|overwritten-not-accumulated: demb[tokens] = dvectors
    # = demb = demb.index_put((tokens,), dvectors, accumulate=True)
    # = demb = demb + torch.einsum("btv,btd->vd", torch.eye(len(emb))[tokens], dvectors)
    return {"emb": demb, "w": dw}

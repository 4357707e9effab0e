"""What every picture is held to, and a network to draw."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import torch
from agreement import normal
from torch import Tensor

import chainrule as cr
from chainrule.pictures.svg import Picture

SVG = "{http://www.w3.org/2000/svg}"
LARGEST = 4000  # elements


def parsed(picture: Picture) -> ElementTree.Element:
    """The picture as XML, after what every picture is held to."""
    root = ElementTree.fromstring(picture._repr_svg_())
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == picture.title
    assert description is not None and (description.text or "").strip() == picture.description.strip()
    assert float(root.get("width", "0")) <= 900 and float(root.get("height", "0")) > 0
    assert sum(1 for _ in root.iter()) <= LARGEST
    assert not list(root.iter(f"{SVG}script")) and not [e for e in root.iter() if e.get("id") or e.get("href")]
    assert "url(" not in picture.svg and "nan" not in re.sub(r"<(title|desc|text)[^>]*>[^<]*", "", picture.svg)
    return root


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def network(x: Tensor, targ: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
    l1 = x @ w1 + b1
    mask = l1 > 0
    l2 = l1 * mask
    loss = ((l2[:, 0] - targ) ** 2).mean()
    return loss


def derived(n: int = 4, **how: Any) -> cr.Derivation:
    torch.manual_seed(0)
    return cr.derive(network, normal(n, 3), normal(n), normal(3, 5), normal(5), **{"wrt": ["w1", "b1"], **how})

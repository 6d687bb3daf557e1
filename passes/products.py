"""Quotients that cancel, through products and over sums.

Gradients taken operation by operation divide by what they multiply with one step later: `log` divides by the softmax
that the softmax's own gradient multiplies with.  Where that is 0 or infinite the pair is NaN, although the product is
an ordinary number; so cancelling is what makes such gradients stable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.types import FLOATS
from tcc.passes.access import Access, identity, resolve
from tcc.passes.fold import splat
from tcc.passes.pattern import AnyRule, function_rule, kept

MOST = 12  # factors looked at
DEPTH = 8  # nested products looked through
PRODUCTS = ("mul", "div", "neg", "reciprocal", "sqr")


@dataclass
class Product:
    """The product of `over` divided by that of `under`, negated if `negative`."""

    over: list[Value] = field(default_factory=list)
    under: list[Value] = field(default_factory=list)
    negative: bool = False

    def times(self, other: Product) -> Product:
        return Product(self.over + other.over, self.under + other.under, self.negative != other.negative)

    def inverse(self) -> Product:
        return Product(self.under, self.over, self.negative)


def factors(v: Value, depth: int = DEPTH) -> Product:
    """`v` as a product."""
    op = v.op
    if op is None or depth == 0 or op.name not in PRODUCTS:
        return Product([v])
    inner = [factors(x, depth - 1) for x in op.operands]
    if sum(len(p.over) + len(p.under) for p in inner) > MOST:
        return Product([v])
    match op.name:
        case "mul":
            return inner[0].times(inner[1])
        case "div":
            return inner[0].times(inner[1].inverse())
        case "reciprocal":
            return inner[0].inverse()
        case "sqr":
            return inner[0].times(inner[0])
        case "neg":
            return Product(inner[0].over, inner[0].under, not inner[0].negative)
    return Product([v])


def through_views(p: Product, b: Builder) -> Product:
    """`p` with each view of a product (a divisor of whole rows, say) written as a product of views."""
    result = Product(negative=p.negative)
    for v in p.over:
        result = result.times(_view_factors(v, b))
    for v in p.under:
        result = result.times(_view_factors(v, b).inverse())
    return result


def _view_factors(v: Value, b: Builder) -> Product:
    if v.op is None:
        return Product([v])
    if v.op.name in PRODUCTS:
        return factors(v)
    if v.op.name not in ("broadcast", "dimshuffle"):
        return Product([v])
    view, inner = v.op, _view_factors(v.op.operands[0], b)
    if inner.over == view.operands:
        return Product([v])

    def seen(x: Value) -> Value:
        return b.op(view.name, x, attrs=view.attrs).result

    return Product([seen(x) for x in inner.over], [seen(x) for x in inner.under], inner.negative)


def place(v: Value) -> Access:
    """Equal for factors that hold the same elements."""
    return resolve(v, identity(v.type.rank))


def terms(v: Value, depth: int = 4) -> list[Product]:
    """`v` as a sum of products; just one if it is no sum."""
    op = v.op
    if op is None or depth == 0 or op.name not in ("add", "sub", "neg"):
        return [factors(v)]
    parts = [terms(x, depth - 1) for x in op.operands]
    last = parts[-1]
    if op.name in ("sub", "neg"):
        last = [Product(p.over, p.under, not p.negative) for p in last]
    return [*(p for part in parts[:-1] for p in part), *last]


def cancel(p: Product, b: Builder) -> Product | None:
    """`p` with what it multiplies and divides by left out, and exponentials joined to what they belong to; None if
    nothing can be done."""
    exponentials = [v for v in p.over if v.op is not None and v.op.name == "exp"]
    if exponentials:
        p = through_views(p, b)
    elif not p.under:
        return None
    over, under = list(p.over), list(p.under)
    places = {w: place(w) for w in under}
    for v in p.over:
        at = place(v)
        same = next((w for w in under if places[w] == at), None)
        if same is not None:
            over.remove(v)
            under.remove(same)
    changed = len(over) < len(p.over)
    for e in [v for v in over if v in exponentials]:
        joined = _softmax(e, under, b) or _sigmoid(e, over, b)
        if joined is not None:
            over.remove(e)
            over.append(joined)
            changed = True
    return Product(over, under, p.negative) if changed else None


def _softmax(e: Value, under: list[Value], b: Builder) -> Value | None:
    """exp(x) / keep(sum(exp(x))) as softmax(x), the divisor taken from `under`."""
    assert e.op is not None
    for v in under:
        total, axes = kept(v)
        if total.op is None or total.op.name != "sum" or axes != [e.type.rank - 1]:
            continue
        if total.op.operands[0] is e and list(total.op.attrs["axes"]) == axes:
            under.remove(v)
            result: Value = b.softmax(e.op.operands[0])
            return result
    return None


def _sigmoid(e: Value, over: list[Value], b: Builder) -> Value | None:
    """exp(x) * sigmoid(-x) as sigmoid(x), the factor taken from `over`."""
    assert e.op is not None
    x = e.op.operands[0]
    for v in over:
        if v.op is None or v.op.name != "sigmoid":
            continue
        y = v.op.operands[0]
        if opposite(x, y):
            over.remove(v)
            result: Value = b.sigmoid(x)
            return result
    return None


def opposite(x: Value, y: Value) -> bool:
    """Whether one is written as `neg` of the other."""
    return any(p.op is not None and p.op.name == "neg" and p.op.operands[0] is q for p, q in ((x, y), (y, x)))


@function_rule("mul", "div", strength="stable")
def cancel_factors(op: Op, b: Builder) -> Value | None:
    """a * (b / a) -> b, through products and over sums"""
    if op.result.type.dtype not in FLOATS:
        return None
    whole = factors(op.result)
    simpler = cancel(whole, b)
    if simpler is not None:
        return build(simpler, op.result, b)
    for v in whole.over:
        if v.op is None or v.op.name not in ("add", "sub"):
            continue
        others = Product([w for w in whole.over if w is not v], whole.under, whole.negative)
        if len(others.over) < len(whole.over) - 1:
            continue
        found = _distribute(others, v, op.result, b)
        if found is not None:
            return found
    return None


def _distribute(others: Product, total: Value, like: Value, b: Builder) -> Value | None:
    """`others` times the sum `total`, term by term, if that cancels something in one of them."""
    products = [others.times(t) for t in terms(total)]
    simpler = [cancel(p, b) for p in products]
    if not any(simpler):
        return None
    result: Value | None = None
    for p in [s or p for s, p in zip(simpler, products)]:
        negative, p = p.negative, Product(p.over, p.under)
        value = build(p, like, b)
        if result is None:
            result = b.neg(value) if negative else value
        else:
            result = b.sub(result, value) if negative else b.add(result, value)
    return result


def build(p: Product, like: Value, b: Builder) -> Value:
    """The operations for a product, of the type of `like`."""
    over = _times([v for v in p.over if splat(v) != 1], b)
    under = _times([v for v in p.under if splat(v) != 1], b)
    if under is not None:
        over = b.reciprocal(under) if over is None else b.div(over, under)
    result = b.full(1, like) if over is None else over
    return b.neg(result) if p.negative else result


def _times(values: list[Value], b: Builder) -> Value | None:
    result: Value | None = None
    for v in values:
        result = v if result is None else b.mul(result, v)
    return result


@function_rule("sub", strength="stable")
def one_minus_sigmoid(op: Op, b: Builder) -> Value | None:
    """1 - sigmoid(x) -> sigmoid(neg(x)), where sigmoid(x) is not wanted otherwise"""
    one, s = op.operands
    if splat(one) != 1 or s.op is None or s.op.name != "sigmoid" or len(s.uses) > 1:
        return None
    result: Value = b.sigmoid(b.neg(s.op.operands[0]))
    return result


RULES: list[AnyRule] = [cancel_factors]

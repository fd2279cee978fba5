"""One transformer that is the prior over genes and over species.

Tokens of a crystal: conditions, space group, then one per orbit. Read causally, they predict the group and
then orbit after orbit in canonical order (ascending position index, the order of `Crystal`), with an exact
likelihood. Read in both directions with some species hidden, they predict the hidden ones: the any-order
masked scheme of arXiv:2110.02037. There is no positional encoding, so sites are treated as a set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, pad

from autoperi.crystals.crystal import MAX_Z
from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.genes.batch import HINT_SIZE, GeneBatch, composition_hint
from autoperi.genes.features import GeneTables, charge_assignments
from autoperi.networks.condition import ConditionEmbedding, drop_conditions
from autoperi.networks.config import ConfigError, check
from autoperi.networks.layers import mlp

_PAIR_FEATURES = 6


@dataclass(frozen=True)
class GeneConfig:
    """Size and training of the gene network.

    Attributes:
        width: features per token.
        depth: transformer blocks.
        heads: attention heads.
        dropout: probability inside the blocks.
        n_max: largest number of atoms per primitive cell drawn without being asked for more.
        hint_share: share of training crystals whose composition is told to the letters (half of it to
            the species), so that a requested formula can steer the gene.
        charge_tables: assignments of one charge to every element, whose balance the species logits see.
        label_smoothing: of the species targets.
    """

    width: int = 128
    depth: int = 6
    heads: int = 8
    dropout: float = 0.05
    n_max: int = 20
    hint_share: float = 0.4
    charge_tables: int = 24
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            width=(1, 8192),
            depth=(1, 256),
            heads=(1, self.width),
            dropout=(0, 1),
            n_max=(1, 10_000),
            hint_share=(0, 1),
            charge_tables=(0, 1024),
            label_smoothing=(0, 1),
        )
        if self.width % self.heads:
            raise ConfigError("heads", f"expected a divisor of width = {self.width}: got {self.heads}")


class GeneNetwork(GeneTables):
    """p(group), p(next orbit | group, orbits so far) and p(species of a site | gene, some species)."""

    def __init__(
        self,
        config: GeneConfig | None = None,
        conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS,
    ) -> None:
        super().__init__()
        self.config = config = config or GeneConfig()
        d = config.width
        self.condition = ConditionEmbedding(d, conditions)
        self.hint = nn.Linear(HINT_SIZE, d)
        self.group = nn.Embedding(231, d)
        self.position = nn.Embedding(len(self.position_features), d)
        self.position_mlp = nn.Sequential(
            nn.Linear(self.position_features.shape[1], d), nn.SiLU(), nn.Linear(d, d)
        )
        self.element = nn.Embedding(MAX_Z + 1, d)
        self.element_mlp = mlp(self.element_features.shape[1], d, d)
        self.mode = nn.Embedding(2, d)
        self.size = nn.Linear(self.counts.shape[1], d)
        self.summary = nn.Linear(3 * self.counts.shape[1] + d, d)
        for embedding in (self.group, self.position, self.element, self.mode):
            nn.init.normal_(embedding.weight, std=0.1)
        self.blocks = nn.ModuleList(_Block(d, config.heads, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d)
        self.to_group = nn.Linear(d, 231)
        self.to_orbit = nn.Linear(d, d)
        self.to_stop = nn.Linear(d, 1)
        self.to_species = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.element_bias = nn.Parameter(torch.zeros(MAX_Z + 1))
        self.copy = nn.Linear(d, 2 * d, bias=False)
        self.charges = nn.Parameter(torch.from_numpy(charge_assignments(config.charge_tables)))
        self.charge_width = nn.Parameter(torch.logspace(-1.5, 0, config.charge_tables))
        self.balance = nn.Linear(d, config.charge_tables)
        nn.init.zeros_(self.balance.weight)
        nn.init.zeros_(self.balance.bias)
        self.copy_bias = nn.Parameter(torch.zeros(()))

    def letter_logits(
        self, batch: GeneBatch, positions: Tensor | None = None
    ) -> tuple[Float[Tensor, "crystals 231"], Float[Tensor, "crystals prefixes letters"]]:
        """Logits of the space group, and of what follows each prefix of orbits.

        The group's go by its number, 0 is -inf. A prefix is followed by a letter of the group (by rank) or,
        last, by the end. Impossible continuations are -inf: other groups' letters, letters before the last
        one, a position without freedom twice, an end before the first orbit. The number of atoms is not
        limited here.
        """
        positions = self.positions() if positions is None else positions
        hidden = self._hidden(batch, positions, causal=True)
        before = torch.cat([torch.full_like(batch.space_group, -1)[:, None], batch.wyckoff], dim=1)
        return self._group_logits(hidden[:, 0]), self._orbit_logits(batch, positions, hidden[:, 1:], before)

    def next_letter(
        self, batch: GeneBatch, positions: Tensor, past: Float[Tensor, "crystals depth before 2 width"]
    ) -> tuple[Tensor, Tensor]:
        """`letter_logits` after the last of all tokens, reading one token: the others are remembered.

        Tokens are conditions and hint, space group, orbits.

        Args:
            batch: prefixes of one length, nothing padded.
            positions: see `positions`.
            past: keys and values of the tokens before the next one, as this method gave them.

        Returns:
            Logits [crystals, 231] of the group where no token went before, else [crystals, letters+1] of
            what follows; and keys and values [crystals, depth, 2, width] of the token that was read.
        """
        token = past.shape[2]
        x, pairs, _ = self._tokens(batch, positions, causal=True)
        x, pairs = x[:, token], pairs[:, token, : token + 1]
        own = []
        for block, seen in zip(self._blocks(), past.unbind(dim=1), strict=True):
            x, made = block.next(x, seen, pairs)
            own.append(made)
        hidden = self.norm(x)
        if token == 0:
            return self._group_logits(hidden), torch.stack(own, dim=1)
        before = batch.wyckoff[:, -1:] if token > 1 else torch.full_like(batch.space_group, -1)[:, None]
        logits = self._orbit_logits(batch, positions, hidden[:, None], before)[:, 0]
        return logits, torch.stack(own, dim=1)

    def species_logits(
        self,
        batch: GeneBatch,
        crystal: Int[Tensor, "wanted"],
        site: Int[Tensor, "wanted"],
        positions: Tensor | None = None,
    ) -> Float[Tensor, "wanted 101"]:
        """Logits of the atomic number of some hidden sites (species 0); Z = 0 is -inf.

        Only the wanted sites are worked out: when drawing that is one of each crystal.

        Args:
            batch: crystals.
            crystal: row of the batch of each wanted site.
            site: its number within the crystal.
            positions: see `positions`.
        """
        positions = self.positions() if positions is None else positions
        h = self._hidden(batch, positions, causal=False)[:, 2:]
        given = one_hot(batch.species, MAX_Z + 1).to(h) * (batch.species > 0)[..., None]
        query, key = self.copy(h).chunk(2, dim=-1)
        pull = query @ key.transpose(-1, -2) * self.config.width**-0.5 + self.copy_bias
        pulled = (pull @ given)[crystal, site]
        wanted = h[crystal, site]
        logits = self.to_species(wanted) @ self._elements().T * self.config.width**-0.5 + self.element_bias
        logits = logits + pulled + self._charge_balance(batch, given, wanted, crystal, site)
        return logits.index_fill(-1, torch.zeros(1, dtype=torch.long, device=h.device), -torch.inf)

    def _charge_balance(
        self, batch: GeneBatch, given: Tensor, wanted: Tensor, crystal: Tensor, site: Tensor
    ) -> Float[Tensor, "wanted 101"]:
        """Bias towards elements that would bring the crystal's charge per atom near zero.

        Each table gives every element one charge, learned from a common oxidation state; how much a
        balance in that table counts is read off the site's own features (little in a metal).
        """
        is_site = batch.wyckoff >= 0
        atoms = self.multiplicity[batch.wyckoff.clamp(min=0)] * is_site
        share = atoms / atoms.sum(dim=1, keepdim=True).clamp(min=1)
        charges = torch.cat([torch.zeros_like(self.charges[:1]), self.charges[1:]]) / self.charge_width
        known = torch.einsum("cs,csz,zt->ct", share, given, charges)
        net = torch.addcmul(known[crystal][:, None], share[crystal, site][:, None, None], charges)
        return torch.einsum("wzt,wt->wz", torch.exp(-net.square()), self.balance(wanted))

    def _group_logits(self, hidden: Tensor) -> Tensor:
        logits = self.to_group(hidden)
        return logits.index_fill(-1, torch.zeros(1, dtype=torch.long, device=hidden.device), -torch.inf)

    def _orbit_logits(
        self, batch: GeneBatch, positions: Tensor, hidden: Tensor, before: Int[Tensor, "crystals prefixes"]
    ) -> Tensor:
        """What follows prefixes whose last position is given, -1 where there is none."""
        first = self.group_start[batch.space_group]
        n_letters = self.group_start[batch.space_group + 1] - first
        rank = torch.arange(27, device=hidden.device)
        candidates = (first[:, None] + rank).clamp(max=len(self.position_features) - 1)
        keys = positions[candidates]
        logits = torch.einsum("cld,cnd->cln", self.to_orbit(hidden), keys) * self.config.width**-0.5
        last = before[:, :, None]
        allowed = (candidates[:, None] > last) | (
            (candidates[:, None] == last) & (self.dim[candidates] > 0)[:, None]
        )
        allowed = allowed & (rank < n_letters[:, None])[:, None]
        stop = self.to_stop(hidden)
        return torch.cat(
            [logits.masked_fill(~allowed, -torch.inf), stop.masked_fill(last < 0, -torch.inf)], dim=-1
        )

    def positions(self) -> Float[Tensor, "positions width"]:
        """Embedding of every Wyckoff position; pass it to the logits to compute it once for several."""
        return self.position.weight + self.position_mlp(self.position_features)

    def _elements(self) -> Float[Tensor, "101 width"]:
        return self.element.weight + self.element_mlp(self.element_features)

    def _hidden(
        self, batch: GeneBatch, positions: Tensor, causal: bool
    ) -> Float[Tensor, "crystals tokens width"]:
        """Read the tokens; padding gives zeros."""
        x, pairs, valid = self._tokens(batch, positions, causal)
        seen = valid[:, None].expand_as(pairs[..., 0])
        if causal:
            seen = seen & torch.ones_like(seen[0]).tril()
        where = valid.flatten().nonzero()[:, 0]
        x = x.flatten(0, 1)[where]
        for block in self._blocks():
            x = block(x, pairs, seen, where)
        out = x.new_zeros(valid.numel(), x.shape[-1]).index_copy(0, where, self.norm(x))
        return out.view(*valid.shape, -1)

    def _tokens(
        self, batch: GeneBatch, positions: Tensor, causal: bool
    ) -> tuple[
        Float[Tensor, "crystals length width"],
        Float[Tensor, "crystals length length features"],
        Bool[Tensor, "crystals length"],
    ]:
        """Tokens before they are read, what attention knows about two of them, and which are no padding."""
        is_site = batch.wyckoff >= 0
        wyckoff = batch.wyckoff.clamp(min=0)
        atoms = self.multiplicity[wyckoff] * is_site
        head = self.condition(batch.conditions) + self.hint(batch.hint) + self.mode.weight[int(causal)]
        site = positions[wyckoff] + self.mode.weight[int(causal)]
        species = torch.zeros_like(batch.species) if causal else batch.species
        if causal:
            site = site + self.size(self.count(atoms.cumsum(dim=1)))
        else:
            total = atoms.sum(dim=1)
            elements = self._elements()[species]
            share = (atoms * (species > 0)).to(head) / total.clamp(min=1)[:, None]
            mean = (elements * share[..., None]).sum(dim=1)
            hidden = ((species == 0) & is_site).sum(dim=1)
            given = one_hot(species, MAX_Z + 1).amax(dim=1)[:, 1:].sum(dim=1)
            facts = [self.count(total), self.count(hidden), self.count(given), mean]
            head = head + self.summary(torch.cat(facts, dim=-1))
            site = site + elements + self.size(self.count(total))[:, None]
        general = self.group_start[batch.space_group + 1] - 1
        group = self.group(batch.space_group) + self.position_mlp(self.position_features[general])
        x = torch.cat([head[:, None], group[:, None], site], dim=1)
        valid = pad(is_site, (2, 0), value=True)
        return x, _pair_features(wyckoff, atoms, species), valid

    def _blocks(self) -> list["_Block"]:
        return [block for block in self.blocks if isinstance(block, _Block)]


class _Block(nn.Module):
    """Pre-norm transformer block: attention on padded tokens, everything else on the ragged ones."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.pair = nn.Linear(_PAIR_FEATURES, heads, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        pairs: Float[Tensor, "crystals length length features"],
        seen: Bool[Tensor, "crystals length length"],
        where: Int[Tensor, "tokens"],
    ) -> Float[Tensor, "tokens width"]:
        crystals, length = pairs.shape[:2]
        qkv = self.qkv(self.norm_1(x))
        padded = qkv.new_zeros(crystals * length, qkv.shape[-1]).index_copy(0, where, qkv)
        q, k, v = padded.view(crystals, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.pair(pairs).permute(0, 3, 1, 2).masked_fill(~seen[:, None], -torch.inf)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        y = y.transpose(1, 2).reshape(crystals * length, -1)[where]
        x = x + self.dropout(self.out(y))
        return x + self.dropout(self.mlp(self.norm_2(x)))

    def next(
        self,
        x: Float[Tensor, "crystals width"],
        past: Float[Tensor, "crystals before 2 width"],
        pairs: Float[Tensor, "crystals seen features"],
    ) -> tuple[Float[Tensor, "crystals width"], Float[Tensor, "crystals 2 width"]]:
        """One more token of each crystal, which sees those before it and itself; and its key and value."""
        query, key, value = self.qkv(self.norm_1(x)).chunk(3, dim=-1)
        own = torch.stack([key, value], dim=1)
        keys, values = torch.cat([past, own[:, None]], dim=1).unflatten(-1, (self.heads, -1)).unbind(dim=2)
        query = query.unflatten(-1, (self.heads, -1))[:, :, None]
        bias = self.pair(pairs).transpose(1, 2)[:, :, None]
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias).flatten(1)
        x = x + self.out(y)
        return x + self.mlp(self.norm_2(x)), own


def _pair_features(
    wyckoff: Int[Tensor, "crystals sites"],
    atoms: Int[Tensor, "crystals sites"],
    species: Int[Tensor, "crystals sites"],
) -> Float[Tensor, "crystals length length features"]:
    """What attention knows about two tokens; nothing about the two that are no sites."""
    both = (atoms[:, :, None] > 0) & (atoms[:, None] > 0)
    same_element = (species[:, :, None] == species[:, None]) & (species > 0)[:, None]
    features = [
        wyckoff[:, :, None] == wyckoff[:, None],
        atoms[:, :, None] == atoms[:, None],
        same_element,
        (species > 0)[:, None].expand_as(both),
        torch.eye(atoms.shape[1], dtype=torch.bool, device=atoms.device).expand_as(both),
        atoms.clamp(min=1).log()[:, None].expand_as(both),
    ]
    pairs = torch.stack([f.float() for f in features], dim=-1) * both[..., None]
    return pad(pairs, (0, 0, 2, 0, 2, 0))


def gene_loss(
    network: GeneNetwork, batch: GeneBatch, generator: torch.Generator | None = None, drop: bool = True
) -> dict[str, Tensor]:
    """Negative log-likelihoods of complete crystals in nats: ``group``, ``letters``, ``species``.

    The species term is the any-order bound: a uniform number of hidden sites, the cross-entropy of the
    hidden ones scaled to all sites. Composition hints and (if ``drop``) conditions are dropped at random. The
    quarter of the crystals with most sites is read apart from the others, which spares most of the padding.
    """
    by_size = (batch.wyckoff >= 0).sum(dim=1).argsort()
    parts = [part for part in by_size.split(max(1, 3 * len(batch) // 4)) if len(part)]
    positions = network.positions()
    sums = [_summed_nll(network, batch.take(part), positions, generator, drop) for part in parts]
    terms = torch.stack(sums).sum(dim=0) / len(batch)
    return dict(zip(("group", "letters", "species"), terms, strict=True))


def _summed_nll(
    network: GeneNetwork, batch: GeneBatch, positions: Tensor, generator: torch.Generator | None, drop: bool
) -> Float[Tensor, "3"]:
    """Terms of `gene_loss`, summed over crystals."""
    config, device = network.config, batch.wyckoff.device
    crystals, sites = batch.wyckoff.shape
    conditions = drop_conditions(batch.conditions, generator) if drop else batch.conditions
    kind = torch.randint(1, 4, (crystals,), generator=generator)
    told = torch.rand(crystals, generator=generator)
    is_site = batch.wyckoff >= 0
    atoms = network.multiplicity[batch.wyckoff.clamp(min=0)] * is_site
    given = [
        composition_hint(batch.species, atoms, (kind * (told < share)).to(device))
        for share in (config.hint_share, config.hint_share / 2)
    ]
    group, orbit = network.letter_logits(replace(batch, conditions=conditions, hint=given[0]), positions)
    loss_group = cross_entropy(group, batch.space_group, reduction="sum")
    first = network.group_start[batch.space_group][:, None]
    stop = orbit.shape[-1] - 1
    target = pad(torch.where(is_site, batch.wyckoff - first, stop), (0, 1), value=stop)
    used = pad(is_site, (1, 0), value=True)
    loss_letters = cross_entropy(orbit[used], target[used], reduction="sum")

    count = is_site.sum(dim=1)
    order = torch.rand(crystals, sites, generator=generator).to(device).masked_fill(~is_site, 2.0)
    rank = order.argsort(dim=1).argsort(dim=1)
    n_hidden = 1 + (torch.rand(crystals, generator=generator).to(device) * count).long().clamp(max=count - 1)
    hide = (rank < n_hidden[:, None]) & is_site
    partial = replace(batch, species=batch.species.masked_fill(hide, 0), conditions=conditions, hint=given[1])
    crystal, site = hide.nonzero(as_tuple=True)
    logits = network.species_logits(partial, crystal, site, positions)
    nll = cross_entropy(
        logits[:, 1:], batch.species[hide] - 1, reduction="none", label_smoothing=config.label_smoothing
    )
    weight = (count / n_hidden)[:, None].expand(-1, sites)[hide]
    return torch.stack([loss_group, loss_letters, (weight * nll).sum()])

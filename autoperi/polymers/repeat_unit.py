"""Repeat units of polymers, written as SMILES with two attachment points; knows RDKit."""

from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

from autoperi.data.cache import required

with suppress(ImportError):  # the room can be looked at without it; `RepeatUnit.of` says what to install
    from rdkit import Chem, rdBase  # type: ignore

MOST_ATOMS = 200
"""Atoms of a repeat unit, hydrogen with them."""
_ELEMENTS = {"H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"}
_HEAD, _TAIL = 1, 2


class PolymerError(ValueError):
    """A SMILES that is no repeat unit, or a polymer that comes to no crystal; the text says why."""


@dataclass(frozen=True)
class RepeatUnit:
    """The part of a chain that is repeated.

    Attributes:
        smiles: as RDKit writes it, of the shortest part that repeats.
        mol: RDKit's molecule, hydrogen and both attachment points as atoms; these have the atom maps 1, 2.
        backbone: atoms of the shortest way between the attachment points, without these.
        chiral: whether the SMILES names a chain that differs from its mirror image.
        centres: tetrahedral centres of which it may say left or right.
    """

    smiles: str
    mol: "Chem.Mol"
    backbone: tuple[int, ...]
    chiral: bool
    centres: int

    @property
    def n_atoms(self) -> int:
        """Without attachment points."""
        return self.mol.GetNumAtoms() - 2

    @classmethod
    def of(cls, smiles: str) -> "RepeatUnit":
        """A repeat unit from its SMILES, say ``*CC(F)(F)*``, cut down to the shortest part that repeats.

        Centres of which the SMILES does not say left or right are alike in all units: isotactic, under a
        glide syndiotactic.

        Raises:
            ImportError: RDKit is not installed.
            PolymerError: not one piece with just two attachment points by single bonds, charges, radicals
                or isotopes, elements or surroundings that MMFF94 does not know, more than `MOST_ATOMS`.
        """
        required("rdkit", "polymers")
        return _unit(_shortest(_parsed(smiles)))


def _parsed(smiles: str) -> "Chem.Mol":
    said = f"of a repeat unit, with two attachment points such as *CC*: got {smiles!r}"
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise PolymerError(f"expected a SMILES {said}, which RDKit cannot read")
    ends = [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() == 0]
    if len(ends) != 2:
        raise PolymerError(f"expected a SMILES {said}, with {len(ends)} of them")
    if len(Chem.GetMolFrags(mol)) != 1:
        raise PolymerError(f"expected one piece {said}, of {len(Chem.GetMolFrags(mol))}")
    single = all(
        end.GetDegree() == 1
        and not end.GetTotalNumHs()
        and end.GetBonds()[0].GetBondType() == Chem.BondType.SINGLE
        and end.GetNeighbors()[0].GetAtomicNum() > 0
        for end in ends
    )
    if not single:
        raise PolymerError(f"expected attachment points by a single bond to an atom each: got {smiles!r}")
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() and atom.GetSymbol() not in _ELEMENTS:
            raise PolymerError(
                f"expected elements {', '.join(sorted(_ELEMENTS))}: got {atom.GetSymbol()} in {smiles!r}"
            )
        if atom.GetFormalCharge() and not _balanced(atom):
            raise PolymerError(f"expected no charged atoms: got {atom.GetSymbol()} in {smiles!r}")
        if atom.GetAtomicNum() and atom.GetIsotope():
            raise PolymerError(
                f"expected no isotopes: got {atom.GetIsotope()}{atom.GetSymbol()} in {smiles!r}"
            )
        if atom.GetNumRadicalElectrons():
            raise PolymerError(f"expected no radicals: got {atom.GetSymbol()} in {smiles!r}")
    for end, number in zip(ends, (_HEAD, _TAIL), strict=True):
        end.SetAtomMapNum(number)
        end.SetIsotope(0)
    count = sum(atom.GetTotalNumHs() + 1 for atom in mol.GetAtoms()) - 2
    if count > MOST_ATOMS:
        raise PolymerError(f"expected {MOST_ATOMS} atoms or fewer: got {count} in {smiles!r}")
    return mol


def _balanced(atom: "Chem.Atom") -> bool:
    """Whether a charge is that of a way of writing, as in a nitro group: its neighbour bears the other."""
    return any(n.GetFormalCharge() == -atom.GetFormalCharge() for n in atom.GetNeighbors())


def _way(mol: "Chem.Mol") -> tuple[int, ...]:
    ends = {atom.GetAtomMapNum(): atom.GetIdx() for atom in mol.GetAtoms() if not atom.GetAtomicNum()}
    return Chem.GetShortestPath(mol, ends[_HEAD], ends[_TAIL])


def _shortest(mol: "Chem.Mol") -> "Chem.Mol":
    """The shortest unit that gives the same chain."""
    way = _way(mol)
    length = len(way) - 2
    for parts in range(length, 1, -1):
        if length % parts:
            continue
        k = length // parts
        bond = mol.GetBondBetweenAtoms(way[k], way[k + 1])
        if bond.GetBondType() != Chem.BondType.SINGLE or bond.IsInRing():
            continue
        cut = Chem.FragmentOnBonds(mol, [bond.GetIdx()], dummyLabels=[(0, 0)])
        pieces = Chem.GetMolFrags(cut, asMols=True)
        first = next(p for p in pieces if any(a.GetAtomMapNum() == _HEAD for a in p.GetAtoms()))
        for atom in first.GetAtoms():
            if atom.GetAtomicNum() == 0 and atom.GetAtomMapNum() == 0:
                atom.SetAtomMapNum(_TAIL)
        if _plain(joined([first] * parts)) == _plain(mol):
            return first
    return mol


def _plain(mol: "Chem.Mol") -> str:
    mol = Chem.Mol(mol)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return Chem.CanonSmiles(Chem.MolToSmiles(mol))


def joined(units: "list[Chem.Mol]") -> "Chem.Mol":
    """A chain of units, its two ends attachment points again; atoms bear ``unit`` and ``atom``."""
    for number, unit in enumerate(copies := [Chem.Mol(unit) for unit in units]):
        for atom in unit.GetAtoms():
            atom.SetIntProp("unit", number)
            atom.SetIntProp("atom", atom.GetIdx())
            if atom.GetAtomicNum() == 0:
                atom.SetAtomMapNum(atom.GetAtomMapNum() + number)
    if len(copies) == 1:
        return copies[0]
    chain = _zipped(reduce(Chem.CombineMols, copies))
    for atom in chain.GetAtoms():
        if atom.GetAtomicNum() == 0:
            atom.SetAtomMapNum(_HEAD if atom.GetAtomMapNum() == _HEAD else _TAIL)
    return chain


def _unit(mol: "Chem.Mol") -> RepeatUnit:
    smiles, mol = _plain(mol), Chem.AddHs(mol)
    stereo = list(Chem.FindPotentialStereo(mol))
    centres = [info for info in stereo if info.type == Chem.StereoType.Atom_Tetrahedral]
    said = any(info.specified != Chem.StereoSpecified.Unspecified for info in centres)
    chiral = said and _ring(mol) != _ring(_mirrored(mol))
    for info in stereo:
        if info.specified != Chem.StereoSpecified.Unspecified:
            continue
        if info in centres:
            mol.GetAtomWithIdx(info.centeredOn).SetChiralTag(Chem.ChiralType.CHI_TETRAHEDRAL_CW)
        else:
            bond = mol.GetBondWithIdx(info.centeredOn)
            bond.SetStereoAtoms(info.controllingAtoms[0], info.controllingAtoms[2])
            bond.SetStereo(Chem.BondStereo.STEREOTRANS)
    return RepeatUnit(smiles, mol, _way(mol)[1:-1], chiral, len(centres))


def _mirrored(mol: "Chem.Mol") -> "Chem.Mol":
    mirrored = Chem.Mol(mol)
    for atom in mirrored.GetAtoms():
        atom.InvertChirality()
    return mirrored


def _ring(mol: "Chem.Mol") -> str:
    """A ring of six units, which has no ends: equal for chains that are the same."""
    chain = joined([mol] * 6)
    for atom in chain.GetAtoms():
        if atom.GetAtomicNum() == 0:
            atom.SetAtomMapNum(_HEAD)
    return Chem.CanonSmiles(Chem.MolToSmiles(_zipped(chain)))


def _zipped(pieces: "Chem.Mol") -> "Chem.Mol":
    """Attachment points of one number joined; RDKit need not complain of the two ends."""
    with rdBase.BlockLogs():
        return Chem.molzip(pieces)

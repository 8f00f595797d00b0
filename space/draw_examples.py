"""Draw the example smears and the page's icon: ``python space/draw_examples.py``.

One small PNG for each subtype goes into ``space/examples``, the icon into ``space/favicon.png``.
The pictures are drawings, not photographs: signed distances give the outlines, and light is absorbed by each stain in
turn (Beer and Lambert), so that cells that overlap darken as they do under a microscope. The same seed gives the same
picture; the seeds are such that the shipped weights name each, so that they show the page and say nothing of the network.
Lengths are pixels of the finished picture; one micrometre is 15 px.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 640, 480
OVERSAMPLING = 2
GLASS = (207, 209, 204)  # the empty field, RGB 0..255

# Colour of a layer of each stain at density 1 on the empty field, RGB 0..255: the violet that the BCCD
# photographs show, one of the stains that the network has learnt.
STAINS = {
    "haemoglobin": (176, 150, 140),
    "dense nucleus": (98, 62, 190),
    "open nucleus": (140, 104, 214),
    "lobed nucleus": (128, 86, 214),
    "blue cytoplasm": (150, 150, 215),
    "grey-blue cytoplasm": (172, 168, 208),
    "pale cytoplasm": (188, 170, 208),
    "rosy cytoplasm": (196, 150, 180),
    "eosinophilic granule": (178, 96, 138),
    "lilac granule": (168, 130, 200),
    "basophilic granule": (88, 62, 150),
    "platelet": (150, 130, 205),
}

Array = NDArray[np.float64]


class Smear:
    """A field of 640x480 px on which stains are laid one over the other.

    Attributes:
        x, y: coordinates of every sample in pixels, each (HEIGHT * OVERSAMPLING, WIDTH * OVERSAMPLING).
        density: how much light is absorbed, (rows, columns, 3), natural logarithm.
        random: where every accident of the drawing comes from.
    """

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        rows, columns = HEIGHT * OVERSAMPLING, WIDTH * OVERSAMPLING
        self.y, self.x = np.mgrid[0:rows, 0:columns] / OVERSAMPLING
        self.density = np.zeros((rows, columns, 3))

    def lay(self, stain: str, amount: Array) -> None:
        """Add ``amount`` (rows, columns; 1 is the stain's full colour) of a stain."""
        absorbed = -np.log(np.array(STAINS[stain]) / np.array(GLASS))
        self.density += amount[..., None] * absorbed

    def near(self, cx: float, cy: float, reach: float) -> "Smear":
        """Return the part of this smear within ``reach`` px of a place: what is laid there is laid here."""
        top, left = (max(int((centre - reach) * OVERSAMPLING), 0) for centre in (cy, cx))
        bottom, right = (max(int((centre + reach) * OVERSAMPLING), 0) for centre in (cy, cx))
        part = copy.copy(self)
        part.x, part.y, part.density = (array[top:bottom, left:right] for array in (self.x, self.y, self.density))
        return part

    def noise(self, size: float) -> Array:
        """Return smooth noise of mean 0 and standard deviation 1 whose grains are ``size`` pixels wide."""
        white = self.random.standard_normal(self.x.shape)
        fy, fx = np.meshgrid(*(np.fft.fftfreq(n, 1 / OVERSAMPLING) for n in self.x.shape), indexing="ij")
        smooth = np.fft.ifft2(np.fft.fft2(white) * np.exp(-0.5 * (2 * np.pi * size / 2) ** 2 * (fx**2 + fy**2))).real
        return (smooth - smooth.mean()) / smooth.std()

    def round(self, cx: float, cy: float, radius: float, wobble: float = 0.03, stretch: float = 1.0) -> Array:
        """Return the signed distance (px, negative inside) to a wobbly circle, ``stretch`` times longer than wide."""
        turn = self.random.uniform(0, np.pi)
        dx, dy = self.x - cx, self.y - cy
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / np.sqrt(stretch)
        v = (dy * np.cos(turn) - dx * np.sin(turn)) * np.sqrt(stretch)
        angle = np.arctan2(v, u)
        edge = np.ones_like(angle)
        for wave in (2, 3, 4, 5):
            edge += wobble / wave * 2 * self.random.normal() * np.cos(wave * angle + self.random.uniform(0, 2 * np.pi))
        return np.hypot(u, v) - radius * edge

    def capsule(self, ax: float, ay: float, bx: float, by: float, radius: float) -> Array:
        """Return the signed distance (px) to a thick line from (ax, ay) to (bx, by)."""
        length = (bx - ax) ** 2 + (by - ay) ** 2
        along = np.clip(((self.x - ax) * (bx - ax) + (self.y - ay) * (by - ay)) / max(length, 1e-9), 0, 1)
        return np.hypot(self.x - ax - along * (bx - ax), self.y - ay - along * (by - ay)) - radius

    def red_cells(self, avoid: tuple[float, float, float], number: int = 26) -> None:
        """Scatter biconcave red cells, and a few platelets, outside the circle ``avoid`` (x, y, radius)."""
        placed: list[tuple[float, float]] = []
        for _ in range(4000):
            if len(placed) == number:
                break
            cx, cy = self.random.uniform(-30, WIDTH + 30), self.random.uniform(-30, HEIGHT + 30)
            radius = self.random.uniform(50, 59)
            if np.hypot(cx - avoid[0], cy - avoid[1]) < avoid[2] + radius * 0.97:
                continue
            # Red cells touch and lie over one another, but seldom stand in the same place.
            if any(np.hypot(cx - px, cy - py) < 66 for px, py in placed):
                continue
            placed.append((cx, cy))
            spot = self.near(cx, cy, 90)
            distance = spot.round(cx, cy, radius, wobble=0.025, stretch=self.random.uniform(1.0, 1.3))
            hollow = np.exp(-((np.maximum(distance + radius, 0) / (0.46 * radius)) ** 2))
            rim = np.exp(-(((distance + 9) / 7) ** 2))
            pallor = self.random.choice([0.25, 0.5, 0.75], p=[0.5, 0.3, 0.2])
            thickness = (1 + 0.16 * rim - pallor * hollow) * (1.0 if pallor < 0.7 else 0.72)
            covered = -spot.density[..., 0] / np.log(STAINS["haemoglobin"][0] / GLASS[0])
            # Where cells overlap, one is squeezed thin: the second adds a third of its colour.
            layer = inside(distance, 1.3) * thickness * self.random.uniform(0.85, 1.1)
            spot.lay("haemoglobin", layer * (1 - 0.67 * np.clip(covered, 0, 1)))
        for _ in range(4):
            cx, cy = self.random.uniform(20, WIDTH - 20), self.random.uniform(20, HEIGHT - 20)
            if np.hypot(cx - avoid[0], cy - avoid[1]) > avoid[2] + 20:
                spot = self.near(cx, cy, 30)
                distance = spot.round(cx, cy, self.random.uniform(7, 11), wobble=0.08, stretch=1.25)
                spot.lay("platelet", inside(distance, 2.0) * (0.85 + 0.12 * spot.noise(5)))

    def nucleus(self, distance: Array, stain: str, coarse: float, contrast: float, density: float = 1.0) -> Array:
        """Lay a nucleus: chromatin in clumps ``coarse`` px wide, a darker membrane; return how much of it is where."""
        distance = distance + 1.6 * self.noise(16)
        body = inside(distance, 1.4)
        clumps = np.tanh(self.noise(coarse)) * contrast + 0.5 * contrast * self.noise(coarse / 2.5) * 0.5
        membrane = 0.18 * np.exp(-(((distance + 3) / 3) ** 2))
        self.lay(stain, body * np.clip(density + clumps + membrane, 0.2, None))
        return body

    def granules(self, within: Array, stain: str, radius: float, spacing: float, strength: float) -> None:
        """Fill the cytoplasm ``within`` (0..1) with round granules at least ``spacing`` px apart."""
        rows, columns = np.nonzero(within > 0.6)
        places: list[tuple[float, float]] = []
        for pick in self.random.permutation(len(rows))[:6000]:
            cx, cy = self.x[0, columns[pick]], self.y[rows[pick], 0]
            if any((cx - px) ** 2 + (cy - py) ** 2 < spacing**2 for px, py in places):
                continue
            places.append((cx, cy))
            size = radius * self.random.uniform(0.8, 1.15)
            spot = self.near(cx, cy, radius + 4)
            distance = np.hypot(spot.x - cx, spot.y - cy) - size
            # A granule is a little ball: dark at its edge, bright where it gathers the light.
            ball = inside(distance, 0.8) * (1 - 0.4 * np.exp(-(((distance + size) / (0.55 * size)) ** 2)))
            spot.lay(stain, ball * strength * self.random.uniform(0.7, 1.1))

    def photograph(self) -> Image.Image:
        """Return the field as an RGB picture of 640x480 px, evenly lit but for a slight fall-off to the corners."""
        light = 1 - 0.05 * ((self.x / WIDTH - 0.45) ** 2 + (self.y / HEIGHT - 0.45) ** 2)
        light = light + 0.004 * self.noise(60)
        pixels = np.array(GLASS) * light[..., None] * np.exp(-self.density)
        pixels = pixels.reshape(HEIGHT, OVERSAMPLING, WIDTH, OVERSAMPLING, 3).mean(axis=(1, 3))
        return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def inside(distance: Array, softness: float) -> Array:
    """Turn a signed distance (px) into coverage 0..1 with an edge ``softness`` px wide."""
    return 1 / (1 + np.exp(np.clip(distance / softness, -40, 40)))


def join(distances: list[Array], blend: float) -> Array:
    """Melt several shapes into one; ``blend`` px says how widely they flow together."""
    return -blend * np.log(sum(np.exp(np.clip(-distance / blend, -60, 60)) for distance in distances))


def eosinophil(smear: Smear, cx: float, cy: float) -> None:
    """Two round lobes joined by a bridge; cytoplasm full of coarse orange-red granules."""
    cell = smear.round(cx, cy, 94, wobble=0.02, stretch=1.06) + 1.2 * smear.noise(14)
    lobes = [
        smear.round(cx - 34, cy - 26, 38, wobble=0.04, stretch=1.2),
        smear.round(cx + 32, cy + 30, 36, wobble=0.04, stretch=1.15),
        smear.capsule(cx - 40, cy - 4, cx + 8, cy + 42, 8),
    ]
    distance = join(lobes, 5)
    body, core = inside(cell, 1.5), inside(distance, 1.8)
    smear.lay("rosy cytoplasm", body * (1 - core) * (0.95 + 0.06 * smear.noise(7)))
    smear.granules(
        body * (1 - core) * inside(cell + 3, 2), "eosinophilic granule", radius=4.4, spacing=6.6, strength=0.68
    )
    smear.nucleus(distance, "lobed nucleus", coarse=13, contrast=0.16)
    # A few granules lie above the nucleus.
    smear.granules(core * (smear.noise(16) > 1.0), "eosinophilic granule", radius=4, spacing=8, strength=0.22)


def lymphocyte(smear: Smear, cx: float, cy: float) -> None:
    """One large round dense nucleus; a thin rim of clear blue cytoplasm."""
    cell = smear.round(cx, cy, 81, wobble=0.02, stretch=1.04) + 1.0 * smear.noise(18)
    distance = smear.round(cx - 4, cy + 3, 71, wobble=0.02, stretch=1.03)
    body, core = inside(cell, 1.6), inside(distance, 1.8)
    edge = np.exp(-(((cell + 2) / 4) ** 2))
    smear.lay("blue cytoplasm", body * (1 - core) * (0.95 + 0.3 * edge + 0.05 * smear.noise(6)))
    smear.nucleus(distance, "dense nucleus", coarse=19, contrast=0.17)


def monocyte(smear: Smear, cx: float, cy: float) -> None:
    """One large kidney-shaped nucleus of open chromatin; wide grey-blue cytoplasm with a few vacuoles."""
    cell = smear.round(cx, cy, 112, wobble=0.03, stretch=1.06) + 2.6 * smear.noise(22) + 0.8 * smear.noise(5)
    turn = np.linspace(0.5 * np.pi, 1.5 * np.pi, 9) + 0.35
    centres = [(cx + 8 + 50 * np.cos(angle), cy + 4 + 52 * np.sin(angle)) for angle in turn]
    bends = [
        smear.capsule(*start, *end, radius)
        for start, end, radius in zip(centres[:-1], centres[1:], (29, 31, 33, 34, 34, 33, 32, 30), strict=True)
    ]
    distance = join(bends, 4)
    body, core = inside(cell, 2.6), inside(distance, 1.8)
    ground = 1.1 + 0.09 * smear.noise(3.2) + 0.12 * smear.noise(11)
    for dx, dy, radius in ((72, 30, 8), (58, 58, 6), (88, -2, 5), (62, -60, 6), (20, 98, 5)):
        ground = ground * (1 - 0.7 * inside(smear.round(cx + dx, cy + dy, radius), 1.6))
    smear.lay("grey-blue cytoplasm", body * (1 - core) * np.clip(ground, 0, None))
    smear.lay("lilac granule", body * (1 - core) * np.clip(smear.noise(2.2) - 1.1, 0, 1.5) * 0.3)
    smear.nucleus(distance, "open nucleus", coarse=9, contrast=0.24)


def neutrophil(smear: Smear, cx: float, cy: float) -> None:
    """Four lobes on thin strands; pale cytoplasm dusted with fine granules."""
    cell = smear.round(cx, cy, 97, wobble=0.03, stretch=1.05) + 1.8 * smear.noise(18)
    places = [(-30, 40, 30, 1.3), (-46, -20, 29, 1.25), (8, -46, 28, 1.3), (46, 8, 31, 1.25)]
    lobes = [smear.round(cx + dx, cy + dy, radius, wobble=0.05, stretch=long) for dx, dy, radius, long in places]
    strands = [
        smear.capsule(cx + a[0], cy + a[1], cx + b[0], cy + b[1], 4.5)
        for a, b in zip(places[:-1], places[1:], strict=True)
    ]
    distance = join(lobes + strands, 3)
    body, core = inside(cell, 2.2), inside(distance, 1.8)
    smear.lay("pale cytoplasm", body * (1 - core) * (1.05 + 0.08 * smear.noise(9)))
    smear.lay("lilac granule", body * (1 - core) * np.clip(smear.noise(1.9) - 0.4, 0, 2) * 0.36)
    smear.nucleus(distance, "lobed nucleus", coarse=12, contrast=0.2)


def basophil(smear: Smear, cx: float, cy: float) -> None:
    """A pale nucleus of two or three lobes, all but hidden by coarse blue-black granules."""
    cell = smear.round(cx, cy, 86, wobble=0.03, stretch=1.06) + 1.4 * smear.noise(16)
    lobes = [
        smear.round(cx - 24, cy - 16, 38, wobble=0.05, stretch=1.2),
        smear.round(cx + 26, cy + 18, 36, wobble=0.05, stretch=1.2),
        smear.capsule(cx - 20, cy - 8, cx + 20, cy + 12, 14),
    ]
    distance = join(lobes, 5)
    body, core = inside(cell, 1.8), inside(distance, 2.4)
    smear.lay("pale cytoplasm", body * (1 - core) * (1.0 + 0.07 * smear.noise(8)))
    smear.nucleus(distance, "lobed nucleus", coarse=14, contrast=0.14, density=0.85)
    for radius, spacing, strength in ((7, 17, 0.95), (5, 11, 0.8), (3.4, 9, 0.6)):
        smear.granules(
            body * inside(cell + 5, 2), "basophilic granule", radius=radius, spacing=spacing, strength=strength
        )


# Name of the file: how the cell is drawn, where its centre lies, the room that red cells leave it, the seed.
EXAMPLES: dict[str, tuple[Callable[[Smear, float, float], None], float, float, float, int]] = {
    "eosinophil": (eosinophil, 330, 232, 96, 11),
    "lymphocyte": (lymphocyte, 306, 246, 86, 23),
    "monocyte": (monocyte, 318, 240, 118, 108),
    "neutrophil": (neutrophil, 324, 244, 100, 47),
    "basophil": (basophil, 318, 238, 92, 62),
}


def draw(name: str) -> Image.Image:
    """Draw the example of that name, RGB, 640x480 px.

    Raises:
        KeyError: there is no example of that name.
    """
    paint, cx, cy, room, seed = EXAMPLES[name]
    smear = Smear(seed)
    smear.red_cells((cx, cy, room))
    paint(smear, cx, cy)
    return smear.photograph()


def icon() -> Image.Image:
    """Return the page's icon: the drawn neutrophil in a round frame, RGBA, 64x64 px."""
    _, cx, cy, room, _ = EXAMPLES["neutrophil"]
    frame = (int(cx - room), int(cy - room), int(cx + room), int(cy + room))
    cell = draw("neutrophil").crop(frame).resize((64, 64), Image.Resampling.LANCZOS)
    rows, columns = np.mgrid[0:64, 0:64] - 31.5
    cell.putalpha(Image.fromarray(np.uint8(255 * inside(np.hypot(rows, columns) - 31, 0.4))))
    return cell


def main() -> None:
    folder = Path(__file__).with_name("examples")
    folder.mkdir(exist_ok=True)
    for name in EXAMPLES:
        draw(name).save(folder / f"{name}.png", optimize=True)
    icon().save(Path(__file__).with_name("favicon.png"), optimize=True)


if __name__ == "__main__":
    main()

"""Screens with patient data, as a recorder shows them before and after an examination: a list, and a form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from endocorpus.phantom.draws import generator
from endocorpus.phantom.identity.letters import font
from endocorpus.phantom.identity.texts import chinese_name, date, latin_name, write_text
from endocorpus.phantom.identity.traits import IdentityPlan, Script

Frame = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Theme:
    """The colours of a screen."""

    ground: Colour
    bar: Colour
    bar_text: Colour
    sheet: Colour
    line: Colour
    text: Colour
    chosen: Colour


WHITE = (255, 255, 255)
THEMES = (
    Theme((212, 208, 200), (10, 36, 106), WHITE, WHITE, (160, 160, 160), (0, 0, 0), (178, 200, 240)),
    Theme((28, 32, 40), (52, 60, 76), (230, 234, 240), (38, 44, 54), (70, 78, 92), (214, 220, 228), (24, 84, 120)),
    Theme((226, 236, 244), (0, 122, 140), WHITE, (250, 252, 254), (180, 200, 212), (20, 40, 60), (255, 236, 170)),
)  # fmt: skip
TITLES = {
    ("worklist", "latin"): "Worklist - Endoscopy Suite 0", ("worklist", "chinese"): "内镜中心 检查列表",
    ("entry", "latin"): "Patient Data Entry", ("entry", "chinese"): "患者信息录入",
}  # fmt: skip
HEADS = {
    "latin": ("Name", "ID", "Sex", "Born", "Date", "Physician"),
    "chinese": ("姓名", "编号", "性别", "出生日期", "检查日期", "医师"),
}
LABELS = {
    "latin": ("Patient name", "Patient ID", "Date of birth", "Sex / Age", "Phone", "Hospital", "Physician", "Comment"),
    "chinese": ("患者姓名", "住院号", "出生日期", "性别 / 年龄", "联系电话", "医院", "检查医师", "备注"),
}


def screen(plan: IdentityPlan, segment: int, time_s: float) -> Frame:
    """A whole frame, shape (height, width, 3): the screen, with a cursor that blinks and a pointer that is moved."""
    part = plan.segments[segment]
    frame, cursor = _still(plan.seed, segment, part.scenery, part.script, plan.size)
    frame = frame.copy()
    if time_s % 1.0 < 0.5:
        x, y, tall = cursor
        frame[y : y + tall, x : x + 2] = 255 - frame[y : y + tall, x : x + 2]
    width, height = plan.size
    x = int(width * (0.5 + 0.3 * np.sin(1.1 * time_s + plan.seed % 7)))
    y = int(height * (0.6 + 0.2 * np.sin(0.7 * time_s)))
    for down in range(max(8, height // 50)):  # the pointer: a triangle
        frame[y + down, x : x + down * 2 // 3 + 1] = 255
        frame[y + down, x] = 0
    return frame


@lru_cache(maxsize=8)
def _still(
    seed: int, segment: int, scenery: str, script: Script, size: tuple[int, int]
) -> tuple[Frame, tuple[int, int, int]]:
    """What stands still of a screen, and the place (x, y) and height of its cursor."""
    rng = generator(seed, "identity", "screen", segment)
    theme = THEMES[int(rng.integers(len(THEMES)))]
    image = Image.new("RGB", size, theme.ground)
    brush = ImageDraw.Draw(image)
    px = max(10, size[1] // 32)
    brush.rectangle((0, 0, size[0], 2 * px), fill=theme.bar)
    brush.text((px, px // 3), TITLES[scenery, script], fill=theme.bar_text, font=font("sans", round(1.2 * px)))
    paint = _worklist if scenery == "worklist" else _entry
    cursor = paint(brush, rng, theme, script, size, px)
    frame: Frame = np.array(image, np.uint8)
    frame.setflags(write=False)
    return frame, cursor


def _person(rng: np.random.Generator, script: Script) -> str:
    return chinese_name(rng) if script == "chinese" else latin_name(rng)


def _sex(rng: np.random.Generator, script: Script) -> str:
    return ("男女" if script == "chinese" else "MF")[int(rng.integers(2))]


def _worklist(
    brush: ImageDraw.ImageDraw, rng: np.random.Generator, theme: Theme, script: Script, size: tuple[int, int], px: int
) -> tuple[int, int, int]:
    """A table of patients, one of them chosen."""
    width, height = size
    rows = int(rng.integers(9, 15))
    columns = [round(width * part) for part in (0.02, 0.24, 0.42, 0.49, 0.65, 0.81)]
    line = round(1.7 * px)
    top, chosen = 3 * px, int(rng.integers(rows))
    brush.rectangle((px // 2, top, width - px // 2, height - px), fill=theme.sheet, outline=theme.line)
    for column, head in zip(columns, HEADS[script], strict=True):
        brush.text((column, top + px // 4), head, fill=theme.text, font=font("sans", px), stroke_width=0.4)
    for row in range(min(rows, (height - top) // line - 2)):
        y = top + (row + 1) * line
        if row == chosen:
            brush.rectangle((px // 2 + 1, y, width - px // 2 - 1, y + line - 1), fill=theme.chosen)
        brush.line((px // 2, y, width - px // 2, y), fill=theme.line)
        cells = (
            _person(rng, script), f"0000{int(rng.integers(10000, 99999))}", _sex(rng, script), date(rng, script),
            date(rng, script), _person(rng, script),
        )  # fmt: skip
        for column, cell in zip(columns, cells, strict=True):
            brush.text((column, y + px // 4), cell, fill=theme.text, font=font("sans", px))
    return columns[0], top + (chosen + 1) * line + px // 4, px


def _entry(
    brush: ImageDraw.ImageDraw, rng: np.random.Generator, theme: Theme, script: Script, size: tuple[int, int], px: int
) -> tuple[int, int, int]:
    """A form with the data of one patient; the cursor stands behind the name."""
    width, height = size
    age = f"{_sex(rng, script)} / {int(rng.integers(18, 90))}"
    answers = (
        _person(rng, script), f"0000{int(rng.integers(10000, 99999))}", date(rng, script), age,
        write_text("phone", script, rng), write_text("hospital", script, rng), _person(rng, script),
        write_text("national", script, rng),
    )  # fmt: skip
    left, field, step = round(0.08 * width), round(0.30 * width), (height - 5 * px) // len(answers)
    for row, (label, answer) in enumerate(zip(LABELS[script], answers, strict=True)):
        y = 4 * px + row * step
        brush.text((left, y), label, fill=theme.text, font=font("sans", px))
        brush.rectangle((field, y - px // 3, round(0.78 * width), y + round(1.5 * px)), fill=theme.sheet,
                        outline=theme.line)  # fmt: skip
        brush.text((field + px // 2, y), answer, fill=theme.text, font=font("sans", px))
    for at, word in enumerate(("OK", "取消" if script == "chinese" else "Cancel")):
        x, y = round(0.82 * width), 4 * px + at * 3 * px
        brush.rectangle((x, y, x + 5 * px, y + 2 * px), fill=theme.bar)
        brush.text((x + px, y + px // 3), word, fill=theme.bar_text, font=font("sans", px))
    end = field + px // 2 + int(font("sans", px).getlength(answers[0])) + 2
    return end, 4 * px, round(1.2 * px)

"""Made-up identifiers. Nobody's: names say that they are made up, dates do not exist, numbers cannot be given out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from endocorpus.phantom.identity.traits import Kind, Script

LAST = ("PHANTOM", "NOBODY", "TESTCASE", "SAMPLE", "FICTION", "PLACEHOLD", "DUMMY", "MOCKUP", "NULLMAN", "INVENTED",
        "EXEMPLAR", "MADEUP", "NOONE", "SPECIMEN")  # fmt: skip
FIRST = ("PAT", "TESS", "NORA", "SAM", "QUINN", "ALEX", "ROBIN", "KIM", "JO", "MAX", "ERIN", "YUKI", "WANDA", "ZED")
SURNAMES = ("王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "胡", "朱", "高", "林", "何", "郭",
            "欧阳", "司马", "上官")  # fmt: skip
# Given names that no one has: sample, fictitious, made up, demonstration, nobody, so-and-so, test, ...
GIVEN = ("样例", "虚构", "杜撰", "演示", "无名", "某某", "试验", "示范", "假设", "空白", "测试", "编造")
HOSPITALS = ("PHANTOM HOSPITAL", "Clinic of Nowhere", "Demo Endoscopy Unit 0", "TEST CITY MEDICAL CTR", "St. Nobody's",
             "Placeholder General", "Fiction University Hosp.")  # fmt: skip
CHINESE_HOSPITALS = ("虚构市第零人民医院", "示例大学附属医院", "无名县中心医院", "样板内镜中心", "杜撰医院消化内科",
                     "测试省立医院", "演示市医院内镜室")  # fmt: skip


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _digits(rng: np.random.Generator, count: int) -> str:
    return "".join(str(int(digit)) for digit in rng.integers(0, 10, count))


def latin_name(rng: np.random.Generator) -> str:
    """A Latin name without a label, such as ``NOBODY, NORA``."""
    last, first = _pick(rng, LAST), _pick(rng, FIRST)
    return (f"{last}, {first}", f"{first} {last}".title(), f"{last}^{first}", f"{first[0]}. {last.title()}")[
        int(rng.integers(4))
    ]


def chinese_name(rng: np.random.Generator) -> str:
    """A Chinese name without a label, two to four characters."""
    given = _pick(rng, GIVEN)
    return _pick(rng, SURNAMES) + (given[0] if rng.random() < 0.25 else given)


def _no_day(rng: np.random.Generator) -> tuple[int, int, int]:
    """A day that no calendar has."""
    month, day = ((2, 30), (2, 31), (4, 31), (6, 31), (9, 31), (11, 31))[int(rng.integers(6))]
    return int(rng.integers(2090, 2100)), month, day


def date(rng: np.random.Generator, script: Script) -> str:
    """A date without a label."""
    year, month, day = _no_day(rng)
    if script == "chinese":
        return f"{year}年{month:02d}月{day:02d}日"
    return (f"{day:02d}/{month:02d}/{year}", f"{year}-{month:02d}-{day:02d}", f"{year}.{month:02d}.{day:02d}",
            f"{month:02d}/{day:02d}/{year % 100}")[int(rng.integers(4))]  # fmt: skip


def national(rng: np.random.Generator) -> str:
    """A Chinese identity number of 18 digits with its right check digit; there is no province 99."""
    year, month, day = _no_day(rng)
    head = f"99{_digits(rng, 4)}{year - 120}{month:02d}{day:02d}{_digits(rng, 3)}"
    return head + check_digit(head)


def check_digit(head: str) -> str:
    """The eighteenth digit of an identity number (ISO 7064, MOD 11-2)."""
    total = sum(int(digit) * pow(2, 17 - at, 11) for at, digit in enumerate(head))
    return "10X98765432"[total % 11]


def _name(rng: np.random.Generator, script: Script) -> str:
    if script == "chinese":
        return _pick(rng, ("", "姓名：", "患者 ")) + chinese_name(rng)
    return _pick(rng, ("", "Name: ", "Pt ")) + latin_name(rng)


def _date(rng: np.random.Generator, script: Script) -> str:
    labels = ("", "检查日期：", "出生 ") if script == "chinese" else ("", "DOB ", "Date: ")
    return _pick(rng, labels) + date(rng, script)


def _clock(rng: np.random.Generator, script: Script) -> str:
    now = f"{int(rng.integers(0, 24)):02d}:{int(rng.integers(60)):02d}:{int(rng.integers(60)):02d}"
    if script == "chinese":
        return ("时间 ", f"{date(rng, script)} ")[int(rng.integers(2))] + now
    return ("", f"{date(rng, script)} ")[int(rng.integers(2))] + now


def _identifier(rng: np.random.Generator, script: Script) -> str:
    number = _pick(rng, ("0000", "FAKE-", "X", "T00-")) + _digits(rng, int(rng.integers(4, 7)))
    labels = ("编号：", "住院号 ", "病历号") if script == "chinese" else ("", "ID ", "MRN: ", "Acc.# ")
    return _pick(rng, labels) + number


def _national(rng: np.random.Generator, script: Script) -> str:
    return ("身份证 " if script == "chinese" else "") + national(rng)


def _phone(rng: np.random.Generator, script: Script) -> str:
    if script == "chinese":  # no number of a mobile begins with 10
        return _pick(rng, ("电话：", "手机 ")) + f"10{_digits(rng, 1)}{_digits(rng, 4)}{_digits(rng, 4)}"
    return _pick(rng, ("", "Tel ")) + f"+1 {_digits(rng, 3)} 555 01{_digits(rng, 2)}"  # reserved for fiction


def _hospital(rng: np.random.Generator, script: Script) -> str:
    return _pick(rng, CHINESE_HOSPITALS if script == "chinese" else HOSPITALS)


def _doctor(rng: np.random.Generator, script: Script) -> str:
    if script == "chinese":
        return _pick(rng, ("医师：", "操作者 ", "主任 ")) + chinese_name(rng)
    return _pick(rng, ("Dr. ", "Physician: ", "Prof. ")) + _pick(rng, LAST).title()


def _serial(rng: np.random.Generator, script: Script) -> str:
    model = _pick(rng, ("CF-X000", "SCOPE-Z0", "PH-190T", "EG-000"))
    return f"{'镜号' if script == 'chinese' else model} SN {_digits(rng, 7)}"


WRITERS: dict[Kind, Callable[[np.random.Generator, Script], str]] = {
    "name": _name, "date": _date, "clock": _clock, "identifier": _identifier, "national": _national, "phone": _phone,
    "hospital": _hospital, "doctor": _doctor, "serial": _serial,
}  # fmt: skip


def write_text(kind: Kind, script: Script, rng: np.random.Generator) -> str:
    """One made-up identifier. A clock's last eight characters are ``HH:MM:SS``."""
    return WRITERS[kind](rng, script)

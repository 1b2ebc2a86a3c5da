"""P0, face parsing: the paper's tables, with known errors and gaps in their figures."""

from __future__ import annotations

from reports.papers.schema import Heading, Layout

P0_STUDENTS = (
    Heading(
        "MobileNetV3, DeepLabV3",
        model="deeplabv3_mobilenet_v3_large",
        notes=(
            "MobileNetV4 in the paper's section 3.4 and in the Korean caption of its figure 2, MobileNetV3 in section "
            "4.2 and in the English caption: read as MobileNetV3",
        ),
    ),
    Heading("ResNet-34, FCN", model="resnet34_fcn"),
    Heading("ResNet-18, FCN", model="resnet18_fcn"),
)
ONE_RUN = "one run each, without a spread: differences of a few hundredths are within what a seed changes"
P0_COMPLEXITY = (
    "performance is said to follow structural complexity; by parameters it does not: MobileNetV3 with 11.0 million "
    "is above ResNet-34 with 21.9 million"
)
P0_SLIPS = (
    "slips: CelebAMask-HQ is cited as reference 9, which is BADANet, and earlier as 2; a section 2.3, which does not "
    "exist, stands for 3.3; section 3.5 gives the logits of both nets a mean of 0, but leaves the teacher's as they are"
)
P0_F1_GAIN = (
    'the "average gain of about 0.5" is the mean over KD, (0.00 + 0.86 + 0.50)/3 = 0.45; over no distillation F1 '
    "gains 1.40, 1.64 and 1.60"
)
P0_CITATION = "the paper cites its reference 2 for logit standardisation, which is its reference 6"

P0_KNOWN_METHODS = (
    Heading("no distillation", method="none"),
    Heading("KD", method="kd"),
    Heading("KD-STD", method="kd_std", notes=(P0_CITATION,)),
)
P0_TEACHER = Heading("ResNet-101, FCN", model="resnet101_fcn")

P0_TABLE_1 = Layout(
    paper="P0",
    number=1,
    caption="the known methods, F1, %",
    metric="f1",
    head="net",
    rows=(Heading("{}", "student", metric="f1"),),
    columns=P0_KNOWN_METHODS,
    students=P0_STUDENTS[:1],
    single_student=True,
    notes=(ONE_RUN, P0_SLIPS),
)


def make_p0_table(number: int, caption: str, rows: tuple[Heading, ...], gain: str, *notes: str) -> Layout:
    """Return a table of the teacher, and of each student under each method."""
    return Layout(
        paper="P0",
        number=number,
        caption=caption,
        metric="f1",
        head="net",
        rows=rows,
        columns=(*P0_KNOWN_METHODS, Heading("LDT", method="ldt", notes=(gain,))),
        teacher=P0_TEACHER,
        students=P0_STUDENTS,
        notes=(ONE_RUN, P0_COMPLEXITY, *notes),
    )


P0_MIOU = "the paper has no mIoU, which is the mean over all classes, the background included"
P0_F1_ROWS = (
    Heading("{} (teacher)", "teacher", method="teacher", metric="f1"),
    Heading("{} (teacher), mIoU", "teacher", method="teacher", metric="miou", ours=True),
    Heading("{}", "student", metric="f1"),
    Heading("{}, mIoU", "student", metric="miou", ours=True),
)
P0_ACCURACY_ROWS = (
    Heading("{} (teacher)", "teacher", method="teacher", metric="accuracy"),
    Heading("{}", "student", metric="accuracy"),
)
P0_TABLE_2 = make_p0_table(2, "F1, %", P0_F1_ROWS, P0_F1_GAIN, P0_MIOU)
P0_TABLE_3 = make_p0_table(3, "accuracy, %", P0_ACCURACY_ROWS, "over KD accuracy gains 0.05, 0.04 and 0.03")

"""The papers' comparison tables: rows, columns, digits, and known errors and gaps in their figures.

Rows, columns and their order are the papers'; headings are in this project's words. The figures are in
reports/analysis/published.csv.
"""

from __future__ import annotations

from dataclasses import replace

from reports.papers.schema import Heading, Layout

# -- P0: face parsing ----------------------------------------------------------------------------------------------

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

# -- P1: CIFAR-100 -------------------------------------------------------------------------------------------------

P1_NOISE = (
    "how many runs stand behind a figure is not stated. In this field the best test epoch lies 0.16 to 0.49 points "
    "above the last one, and runs that differ by chance alone have a standard deviation near 0.2"
)
P1_IMAGE = "the paper's table is an image, of which only the differences that its text states survive"
EAT = "the best of several: r = 0.4 for ResNet-8, 0.2 for ResNet-20"
LP = "0 to 40 % in four stages for ResNet-8; for ResNet-20 no setting is known"

P1_TABLE_1 = Layout(
    paper="P1",
    number=1,
    caption="top-1 of DKD, %, and differences to it, points",
    metric="accuracy",
    head="method",
    rows=(
        Heading("DKD", method="dkd", metric="accuracy", notes=(P1_IMAGE,)),
        Heading("+ EAT", method="dkd+eat", metric="accuracy", versus="dkd", notes=(EAT,)),
        Heading("+ DAT", method="dkd+dat", metric="accuracy", versus="dkd"),
        Heading("+ LP", method="dkd+lp", metric="accuracy", versus="dkd", notes=(LP,)),
    ),
    columns=(Heading("{}", "student"),),
    students=(Heading("ResNet-8", model="resnet8"), Heading("ResNet-20", model="resnet20")),
    notes=(P1_NOISE,),
)

# -- P2: face super-resolution -------------------------------------------------------------------------------------

P2_BRACKET = "its equation 2 has a misplaced bracket: D(F_T − 1)² where (D(F_T) − 1)² is meant"
P2_UNKNOWN = "the paper gives no sizes of nets, no times, no settings and no number of test images; its digits vary"
P2_CHANNEL = "whether on RGB or on luminance is not stated"
P2_COSTS = "not in the paper, which states neither sizes nor times; what they are of stands below the table of nets"

P2_TABLE_1 = Layout(
    paper="P2",
    number=1,
    caption="8-fold face super-resolution",
    metric="psnr",
    head="net",
    rows=(
        Heading("RCAN", model="rcan", method="baseline"),
        Heading("SRFBN", model="srfbn", method="baseline", notes=("which of its sizes is not stated",)),
        Heading("{} (teacher)", "teacher", method="teacher"),
        Heading("{}, no distillation", "student", method="none"),
        Heading("{}, adversarial distillation", "student", method="adversarial_kd", notes=(P2_BRACKET,)),
        Heading("Dictionary net's control, without atoms", model="vgg_sr-control", method="none", ours=True),
    ),
    columns=(
        Heading("PSNR, dB", metric="psnr", digits=3, notes=(P2_CHANNEL,)),
        Heading("SSIM", metric="ssim", digits=3, notes=(P2_CHANNEL,)),
        Heading("LPIPS", metric="lpips", digits=4, notes=("of which net is not stated",)),
        Heading("parameters", metric="parameters", notes=(P2_COSTS,)),
        Heading("MACs", metric="macs", notes=(P2_COSTS,)),
        Heading("latency, ms", metric="latency", notes=(P2_COSTS,)),
    ),
    teacher=Heading("Dictionary net", model="vgg_sr-32atoms"),
    students=(Heading("Student", model="vgg_sr"),),
    notes=(P2_UNKNOWN,),
)

# -- P4: crowd counting --------------------------------------------------------------------------------------------

P4_STUDENTS = (Heading("MCNN", model="mcnn"),)
MAE = Heading("MAE", metric="mae")
RMSE = Heading("RMSE", metric="rmse", notes=("called MSE in the paper's text",))
P4_SIZE = (
    "measured: the float32 weights, 4 bytes a parameter. The paper prints file sizes, which mislead: 366.6 MB "
    "for M-SFANet is what four copies of its 91.6 MB take, as a training checkpoint with an optimiser's moments "
    "holds them; 0.532 MB for MCNN and 0.543 MB with KD differ by how, or for how many input channels, it was "
    "saved, for distillation adds no parameters. By weights MCNN is 99.4 % smaller, not 99.85 %"
)
P4_ALPHA = "this alpha, the best of table 2, seems to have been chosen on test images"
P4_GAIN = (
    "the 17.55 % by which distillation is said to improve the student is (110.2 − 90.86)/110.2 of its MAE, which "
    "the text calls accuracy, and compares two code bases; RMSE improves by 0.12 %"
)

P4_TABLE_1 = Layout(
    paper="P4",
    number=1,
    caption="size and error of teacher and student",
    metric="mae",
    head="net",
    rows=(
        Heading("{} (teacher)", "teacher", method="teacher"),
        Heading("{}", "student", method="none"),
        Heading("{} with KD, alpha 0.1", "student", method="kd alpha=0.1", notes=(P4_ALPHA, P4_GAIN)),
    ),
    columns=(
        Heading("parameters", metric="parameters"),
        Heading("size, MB", metric="size_mb", notes=(P4_SIZE,)),
        MAE,
        RMSE,
    ),
    teacher=Heading("M-SFANet", model="m_sfanet"),
    students=P4_STUDENTS,
)

P4_CONTROL = (
    "alpha 0 is this study's control. The paper has none: its student without distillation is the MCNN paper's "
    "figure, from another code base"
)
P4_CHOICE = "alpha seems to have been chosen on test images; in this study validation chooses"
P4_TREND = (
    "MAE rises with alpha, and at 0.7 it is worse (110.85) than without distillation (110.2): the less "
    "distillation, the better, down to the missing 0"
)
P4_UNEVEN = "RMSE does not follow alpha: at 0.5 it is higher (217.68) than at 0.7 (202.47)"

P4_TABLE_2 = Layout(
    paper="P4",
    number=2,
    caption="error against alpha",
    metric="mae",
    head="student",
    rows=(
        Heading("{}, alpha 0", "student", method="none", ours=True),
        *(Heading(f"{{}}, alpha {alpha}", "student", method=f"kd alpha={alpha}") for alpha in (0.1, 0.3, 0.5, 0.7)),
    ),
    columns=(replace(MAE, notes=(P4_TREND,)), replace(RMSE, notes=(*RMSE.notes, P4_UNEVEN))),
    students=P4_STUDENTS,
    further_arms=True,
    notes=(P4_CONTROL, P4_CHOICE),
)

LAYOUTS = (P0_TABLE_1, P0_TABLE_2, P0_TABLE_3, P1_TABLE_1, P2_TABLE_1, P4_TABLE_1, P4_TABLE_2)

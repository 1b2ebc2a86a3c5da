"""P1, CIFAR-100: the paper's table, with known errors and gaps in its figures."""

from __future__ import annotations

from reports.papers.schema import Heading, Layout

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

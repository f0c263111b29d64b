"""The README.md that lies beside a stand-in."""

_TEXT = """# A stand-in for AVA, AVA-Kinetics, Kinetics, Moments in Time and Something-Something v2

Size `{size}`, seed {seed}.

**These are not the data sets.** The files lie, are named and are written as those of the real sets, down to columns,
clocks, frame rates, containers and names of classes, but the videos show people drawn from motion capture, there are
few of them and only some of the classes occur. Everything from a download to a score can be tried with them; a score
on them says nothing. Made with

    python tools/make_standin.py --out DIR --size {size} --seed {seed}

| path | stands for |
| --- | --- |
| `ava/videos/*.mp4` | movies of AVA, cut: files start at second 900 of the movie (`time_offset`), 24 frames a second |
| `ava/ava_{{train,val}}_v2.2.csv` | true boxes: video, second, box, action id, person id |
| `ava/ava_{{train,val}}_excluded_timestamps_v2.2.csv` | keyframes to leave out: the seconds of cuts |
| `ava/ava_included_timestamps_v2.2.txt` | the seconds that may be keyframes |
| `ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt` | the 60 classes that AVA evaluates, with AVA's ids |
| `ava/person_box_67091280_iou90/*.csv` | person detections (simulated) in the layout of LFB and SlowFast |
| `ava/ava_dense_proposals_*.pkl` | the same in mmaction2's layout |
| `ava/kinetics_{{train,val}}_v1.0.csv` | AVA-Kinetics: boxes on clips of `k700`, seconds of the whole video |
| `ava/kinetics_detection_{{train,val}}.csv` | person detections for them; the real ones were never published |
| `k700/`, `k400/` | `annotations/*.csv`, clips `<id>_SSSSSS_EEEEEE.mp4` in folders of classes and flat, 25 a second |
| `mit/` | Moments in Time: `trainingSet.csv`, `validationSet.csv`, `moments_categories.txt`, 3-second clips |
| `ssv2/` | Something-Something v2: `labels/*.json` and WebM files, 12 a second |

Names of classes and what is shown instead: a cartwheel is annotated as jumping, a punch as fighting, a kick as martial
art; where the list of Moments in Time or Something-Something names something else than a rendered movement does, the
movement nearest to it is shown. Directions (left to right) are true.

The data, like the program that draws it, is under the Apache License 2.0; the motion capture's licence is in vidloc's
NOTICE.
"""


def text(size: str, seed: int) -> str:
    """The text for a directory that standin.make writes."""
    return _TEXT.format(size=size, seed=seed)

"""Balanced accuracy, the measure of Fig. 3: the mean over classes of the share found of each.

As scikit-learn's ``balanced_accuracy_score``, which the authors' code calls: classes that do not
occur among the true labels are left out, so that guessing one class gives 1 / (number that occur).
Written as a weighted share of right predictions, because training asks for it after every epoch.
"""

import numpy as np
from jaxtyping import Float64, Int64


def balanced_weights(truth: Int64[np.ndarray, "n t"]) -> Float64[np.ndarray, "n t"]:
    """Return what a right prediction of each image adds to the balanced accuracy of each task.

    That is 1 / (K_t N_tc), K_t the classes that occur and N_tc the images of the image's class;
    labels below 0 are unknown and weigh 0. A column sums to 1, or to 0 if nothing is known.
    """
    weights = np.zeros(truth.shape, np.float64)
    for labels, column in zip(truth.T, weights.T, strict=True):
        known = labels >= 0
        _, index, counts = np.unique(labels[known], return_inverse=True, return_counts=True)
        column[known] = (1 / (max(1, len(counts)) * counts))[index]
    return weights


def balanced_accuracy(
    truth: Int64[np.ndarray, "n t"], predictions: Int64[np.ndarray, "*s n t"]
) -> Float64[np.ndarray, "*s t"]:
    """Return the balanced accuracy of each task, 0 to 1; 0 if no label is known.

    Parameters
    ----------
    truth : classes; below 0: unknown, such an image does not count.
    predictions : classes, of any number of predictors.
    """
    right = predictions == truth
    return np.asarray((right * balanced_weights(truth)).sum(-2))

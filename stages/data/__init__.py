"""Image sets: the embedded ones are made here, all of them are read here.

``images.load_images(name, split, size)`` is the one way in. One file a source: ``embedded`` (the
emoji sets of ``data/``, made by ``emoji``), ``folder`` (image folders, known by the fingerprint
that ``register`` wrote), ``torchvision_sets`` (CIFAR, STL-10, CelebA, ImageNet). docs/data.md is
the users' page.
"""

"""Paper C: what deep features give away, whether ShuffleBits hides it, and ShuffleBits broken.

X. Ni, H. Huttunen, E. Rahtu, "On the Importance of Encrypting Deep Features", ICCV Workshops 2021,
arXiv:2108.07147. The authors' code (github.com/nixingyang/ShuffleBits) and FastReID v1.0.0 settle
what the paper leaves open; none of either is used.

Replicated: three black boxes, trained on a set of their own (Sec. III-A: ``prepare``,
``train_reid``, ``extract``), attributes recovered from their features (Sec. III-B, Fig. 3:
``attributes``), images recovered from them by three losses (Sec. III-C, Fig. 4: ``reconstruct``,
``evaluate``), ShuffleBits and both threats under it (Secs. II-B and III-D, Fig. 2: ``shufflebits``,
``encrypt``). The paper prints no number but 32!: figures and claims are judged by ``score`` and
shown by ``report``. Beyond the paper: the cryptanalysis that it names as an extension
(``cryptanalyse``, ``break_shufflebits``), real ciphers beside it, controls of chance and of equal
training, and a statistical verdict for every claim.
"""

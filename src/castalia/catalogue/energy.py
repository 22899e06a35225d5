"""Boltzmann machines and energies."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "rbm",
        "Restricted Boltzmann machine",
        "energy.rbm:RBM",
        media=("image",),
        paper="Smolensky 1986; contrastive divergence: Hinton 2002; persistent chains: Tieleman 2008; likelihood: "
        "Salakhutdinov & Murray 2008",
        capabilities=("Generator", "Density", "Refinement"),
        good="The classic of energy: binary pixels and hidden causes, trained in seconds. Likelihoods are "
        "estimated from both sides; grey needs Gaussian units.",
    ),
    Entry(
        "dbn",
        "Deep belief net",
        "energy.dbn:DBN",
        media=("image",),
        paper="Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets; likelihood: "
        "Salakhutdinov & Murray 2008",
        capabilities=("Generator", "Density"),
        good="Layers of Boltzmann machines, greedy and then fine-tuned up and down: draws digits by class, and "
        "classifies them.",
    ),
    Entry(
        "dbm",
        "Deep Boltzmann machine",
        "energy.dbm:DBM",
        media=("image",),
        paper="Salakhutdinov & Hinton 2009, Deep Boltzmann Machines; centred: Montavon & Mueller 2012",
        capabilities=("Generator", "Density", "Refinement"),
        good="Two layers of causes without directions: fills in a picture from any part, and draws by moves in "
        "all layers at once.",
    ),
    Entry(
        "ebm",
        "Energy-based model",
        "energy.ebm:EBM",
        media=("image", "points"),
        paper="Du & Mordatch 2019 (arXiv:1903.08689)",
        capabilities=("Generator", "Refinement", "Perception"),
        good="One network that says how natural a picture is, sampled by following its slope. Flexible, slow "
        "to sample, and training needs watching.",
    ),
    Entry(
        "jem",
        "Joint energy-based model (JEM)",
        "energy.jem:JEM",
        media=("image", "points"),
        paper="Grathwohl et al. 2020 (arXiv:1912.03263)",
        capabilities=("Generator", "Refinement", "Perception"),
        good="A classifier that draws what it knows: one network for classes and for pictures of each. Training "
        "needs watching.",
    ),
)

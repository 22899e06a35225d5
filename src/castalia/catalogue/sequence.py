"""Text, token by token."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "gpt2",
        "GPT-2",
        "sequence.gpt2:GPT2",
        media=("text",),
        paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Continues any text in its manner, by a transformer that sees all that came before. Wants much "
        "text; short runs spell well and make no sense.",
    ),
    Entry(
        "gpt3",
        "GPT-3",
        "sequence.gpt3:GPT3",
        media=("text",),
        paper="Brown et al. 2020 (arXiv:2005.14165)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="GPT-2 in which every second layer sees a band only: longer contexts for the same work, and examples in "
        "the prompt instead of training.",
    ),
    Entry(
        "gpt-modern",
        "Modern GPT",
        "sequence.gpt_modern:GPTModern",
        media=("text",),
        paper="Jordan et al. 2024, modded-nanogpt; Su et al. 2021 (arXiv:2104.09864)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="The text model to begin with: a GPT with the details of today, which learns more in the same minutes.",
    ),
    Entry(
        "dpo",
        "DPO on GPT-2",
        "sequence.dpo:DPO",
        media=("text",),
        paper="Rafailov et al. 2023 (arXiv:2305.18290)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Teaches a trained GPT-2 which of two answers you like better, from pairs of them.",
    ),
    Entry(
        "lora",
        "LoRA on GPT-2",
        "sequence.lora:LoRA",
        media=("text",),
        paper="Hu et al. 2021 (arXiv:2106.09685)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Teaches a trained GPT-2 your manner with a hundredth of its weights, from a few pages and in minutes.",
    ),
    Entry(
        "lstm",
        "LSTM language model",
        "sequence.lstm:LSTM",
        media=("text",),
        paper="Hochreiter & Schmidhuber 1997; Zaremba, Sutskever & Vinyals 2014 (arXiv:1409.2329)",
        capabilities=("Generator", "Density", "Streaming"),
        good="Continues text with a small memory that it carries along: little to compute per letter, any "
        "length, less far-sighted than GPT-2.",
    ),
    Entry(
        "retro",
        "RETRO",
        "sequence.retro:Retro",
        media=("text",),
        paper="Borgeaud et al. 2021 (arXiv:2112.04426)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Looks up what is like the text before in the training data, and reads it while it writes: for texts that "
        "have much in common.",
    ),
)

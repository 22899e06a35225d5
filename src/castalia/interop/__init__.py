"""Ways out of Castalia, and back in. Nothing here writes or reads what could run code.

folder.py              a run as a folder that can be published, and the checked way back
received.py            what a folder from elsewhere must prove before anything is built from it
hub.py                 the same folder on the Hugging Face hub, at a pinned revision
programs.py            network calls as torch.export programs or ONNX graphs, each compared with the original
target.py              output folders that appear whole or not at all
diffusers.py           networks in the format of diffusers' UNet2DModel, read with suspicion and written
diffusers_runs.py      whole runs as its pipelines, and back
diffusers_layout.py    its configuration and tensor names against ours
diffusers_files.py     its folders: which files, how large, of what kind
diffusers_words.py     its U-Net with words, LoRA weights and learned embeddings against ours
diffusers_parts.py     autoencoders, transformers and priors of theirs against ours
diffusers_systems.py   runs as parts of its pipelines, and back onto a run
personal.py            runs of personalisation as such files, and back onto a run
diffusers_schedule.py  its schedulers against our noise levels
"""

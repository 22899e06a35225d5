"""Ways out of Castalia, and back in. Nothing here writes or reads a pickle.

folder.py    a run as a folder that can be published, and the checked way back
received.py  what a folder from elsewhere must prove before anything is built from it
hub.py       the same folder on the Hugging Face hub, at a pinned revision
programs.py  network calls as torch.export programs or ONNX graphs, each compared with the original
target.py    output folders that appear whole or not at all
"""

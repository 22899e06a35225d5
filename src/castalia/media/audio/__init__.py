"""Sound: waveforms of any length, mono or stereo.

* ``clips.py``: :class:`AudioClips`, a data set of clips, packed as 16-bit samples.
* ``decode.py``: the samples of one file, at the rate and with the channels that are wanted.
* ``read.py``: :func:`open_audio`, from folders, zips and single files; labels and splits by names.
* ``write.py``: WAV and FLAC; ``draw.py``: waveform over mel spectrogram; ``hearing.py``: pitch, loudness, silence.
* ``sets.py``: sets that have a name and a tiny built-in one; ``markov.py``: what counting alone predicts.
* ``medium.py``: :class:`AudioMedium`, the medium.
"""

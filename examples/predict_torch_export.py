"""What model.pt2 answers, without videogn (pip install torch av pillow): python predict_torch_export.py model.pt2 clip.mp4"""

import json
import sys
import zipfile

import av
import numpy as np
import torch
from PIL import Image

model, video = sys.argv[1:]
with zipfile.ZipFile(model) as archive:
    (about,) = (json.loads(archive.read(name)) for name in archive.namelist() if name.endswith("/extra/videogn"))
    is_native = any("/data/aotinductor/" in name for name in archive.namelist())
network = torch._inductor.aoti_load_package(model) if is_native else torch.export.load(model).module()
torch.set_grad_enabled(False)

protocol, given = about["protocol"], about["input"]
rule = [protocol.get(key) for key in ("clip_rule", "crops", "aggregation", "target_fps")]
assert [*rule, given["shape"][0] or 1] == ["wrap_round", 1, "softmax_mean", None, 1], "this example is for ten_clip"

with av.open(video) as container:
    frames = [frame.to_image() for frame in container.decode(video=0)]
starts = np.arange(protocol["num_clips"]) * len(frames) // protocol["num_clips"]
indices = (starts[:, None] + np.arange(protocol["clip_length"]) * protocol["frame_stride"]) % len(frames)
(width, height), size = frames[0].size, protocol["crop_size"]
side = round(size * min(width, height) / protocol["short_side"])
left, top = (width - side) // 2, (height - side) // 2
crops = [frame.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR) for frame in frames]
clips = np.stack([np.stack([np.asarray(crops[i]) for i in clip]) for clip in indices])  # uint8 (N, T, H, W, 3), RGB
if not given["is_uint8"]:
    clips = ((clips - given["mean"]) / given["std"]).transpose(0, 4, 1, 2, 3).astype(np.float32)  # (N, 3, T, H, W)

scores = np.concatenate([network(torch.from_numpy(clip[None])).numpy() for clip in clips]).astype(np.float64)
powers = np.exp(scores - scores.max(1, keepdims=True))
probabilities = (powers / powers.sum(1, keepdims=True)).mean(0)
for label in probabilities.argsort()[::-1][:5]:
    print(f"{probabilities[label]:7.2%}  {about['classes'][label]}")

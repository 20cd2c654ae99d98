"""Growing trained models of Hugging Face's layout by the operators that the contract certifies.

architecture.py   data: which tensors an architecture has, along which axes, under which sizes
architectures/    one file each; a user's own works the same
folder.py         the folder that holds a checkpoint: reading it and writing one, tensor by tensor
growth.py         a method's operators applied to one tensor after the other
optimizer.py      AdamW's state, as the Trainer of transformers saves it
proof.py          logits before and after, by transformers' own classes
grow.py           all of it, from one folder to another
"""

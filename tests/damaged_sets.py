"""Saved sets with something wrong in them: what `load` says, and what happens to what it lets through.

    python tests/damaged_sets.py --n 2500 --seed 0

One small set of every codec and of every kind of labels and networks is saved, then changed in many ways: bytes
flipped; values of the header removed, retyped, huge, nested; tensors dropped, renamed, reshaped, retyped, filled with
NaN or with numbers out of range. Each change is made once with the checksum as it was and once with the right one,
which an attacker can compute. Every file is read in a process of its own, with a limit of memory and of time.
"""
import argparse, collections, copy, hashlib, json, os, random, resource, signal, struct, sys, tempfile
from pathlib import Path

os.environ.update(VCD_QUIET='1', OMP_NUM_THREADS='1')

import torch

import vcd.clips as saved
from vcd.all import *
from vcd.methods.vdsd import StaticDynamic, all_pairs

memory,seconds = 2**30,60   # what a file may take beyond what the process has: bytes; seconds
dtypes = {torch.uint8: 'U8', torch.int8: 'I8', torch.int16: 'I16', torch.int32: 'I32', torch.int64: 'I64',
          torch.float16: 'F16', torch.bfloat16: 'BF16', torch.float32: 'F32', torch.float64: 'F64', torch.bool: 'BOOL'}


def make_sets():
    "Small sets by name: every codec, and sets with soft labels, a teacher, a scorer, a decoder"
    gen  = torch.Generator().manual_seed(0)
    real = ClipSet(Pixels().encode(torch.rand(4, 4, 3, 16, 16, generator=gen)), torch.tensor([0, 0, 1, 1]), ['run', 'sit'],
                   meta=Meta(Source('toy'), Clips(name=['a', 'b', 'c', 'd'], bytes=[10, 20, 30, 40]),
                             Making(vpc=2, method='random', seconds=.25)))
    x,y,names = real.clips(),real.labels,real.classes
    of   = lambda codec, store, labels=y, meta=real.meta: ClipSet(store, labels, names, codec, meta)
    tiny = _tiny(x)
    sets = dict(pixels=real, picked=real.pick([0, 3]), repeat=keep_frames(real, 2),
                normalised=of(Pixels('normalised'), Pixels('normalised').encode(x, torch.float16)),
                partition=of(Partition(), Partition().encode(x[:2], [2, 2]), meta=None),
                keyframes=of(KeyFrames(4), KeyFrames(4).encode(x)), video=compress_clips(real, crf=30, joined=False),
                joined=compress_clips(real, crf=30, joined=True, frames=2), latents=encode_clips(real, 'none', frames=2),
                decoder=encode_clips(real, tiny), packed=repack(encode_clips(real, tiny), 'tucker+int8'),
                latents_pca=repack(encode_clips(real, 'none'), 'pca:.1+fp16'))
    sets['static_dynamic'] = of(StaticDynamic(), dict(
        static=real.store['frames'][:2, 0], dynamic=torch.randn(2, 4, 1, 16, 16, generator=gen), pair=all_pairs(1),
        weight=torch.randn(3, 4, 3, 3, 3, generator=gen)/9, bias=torch.zeros(3)), meta=None)
    soft = real.meta.change(clips=real.meta.clips.change(label=y.tolist()), training=Training(temperature=2.))
    sets['soft'] = of(Pixels(), real.store, torch.rand(4, 2, generator=gen).softmax(1), soft)
    state = weight_entries('teacher', new_net('tiny-damaged', 2, real.shape).state_dict())
    training = Training('tiny-damaged', 'tsgf', dict(eps=.75, k=2), temperature=4., relabel=True)
    sets['teacher'] = of(Pixels(), {**real.store, **state}, meta=real.meta.change(training=training))
    state = weight_entries('scorer', FrameScorer((2, 3)).state_dict())
    sets['scorer'] = of(sets['latents'].codec, {**sets['latents'].store, **state})
    uncovered = {*codecs} - {o.codec.name for o in sets.values()}
    assert not uncovered, f'no set of {uncovered}; add one here'
    return sets

def _tiny(x):
    with open(os.devnull, 'w') as f:
        out,sys.stdout = sys.stdout,f
        try: return train_tiny(x.flatten(0, 1), steps=1, width=4, device='cpu')
        finally: sys.stdout = out

def tiny_damaged(n_classes, shape): return TinyNet(n_classes, shape, width=3, norm=True)
nets['tiny-damaged'] = tiny_damaged


# ---- a file in pieces

def read_pieces(path):
    "Header and tensors of a saved set"
    with saved.safe_open(path, 'pt') as f: return json.loads(f.metadata()['vcd']), {k: f.get_tensor(k) for k in f.keys()}

def write_pieces(path, head, tensors, fresh, edit=lambda outer: outer, text=None):
    "A file of these pieces, without a check; with a checksum that is right if `fresh`"
    if fresh and isinstance(head, dict) and 'checksum' in head:
        try: head = dict(head, checksum=saved.checksum(head, tensors))
        except Exception: pass
    outer,data,at = {'__metadata__': {'vcd': json.dumps(head) if text is None else text}},b'',0
    for k,v in tensors.items():
        b = v.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if v.numel() else b''
        outer[k] = dict(dtype=dtypes[v.dtype], shape=list(v.shape), data_offsets=[at, at+len(b)])
        data,at = data+b,at+len(b)
    outer = edit(outer)
    said = (outer if isinstance(outer, str) else json.dumps(outer)).encode()
    Path(path).write_bytes(struct.pack('<Q', len(said)) + said + data)


# ---- what can be wrong

odd_values = [None, True, False, 0, 1, -1, 2, 3.5, -1e9, 10**9, 2**63, 10**30, float('nan'), float('inf'), '', 'x', 'pixels', 'a'*1000,
              [], {}, [1], [1, 2], [[1]], {'a': 1}, [10**9]*4, '../x', '1']

def places(o, at=()):
    "The paths of all values in JSON"
    items = o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ()
    for k,v in items:
        yield at+(k,)
        yield from places(v, at+(k,))

def inner(o, at):
    for k in at: o = o[k]
    return o

def edit_header(head, rng):
    "One value of the header removed, renamed, doubled or replaced"
    head = copy.deepcopy(head)
    *up,last = rng.choice([o for o in places(head) if o[0] != 'checksum'])
    box,how = inner(head, up),rng.choice(['remove', 'replace', 'replace', 'replace', 'scale', 'add', 'double'])
    if how == 'remove': del box[last]
    elif how == 'replace': box[last] = rng.choice(odd_values)
    elif how == 'scale' and isinstance(box[last], (int, float)): box[last] = box[last]*rng.choice([-1, 1000, 10**9])+rng.choice([0, 1])
    elif how == 'add' and isinstance(box, dict): box['more'] = rng.choice(odd_values)
    elif isinstance(box, list): box.insert(last, copy.deepcopy(box[last]))
    else: box[last] = [box[last]]
    return head

def edit_training(head, rng):
    "Fields of `meta.training` that are odd"
    head = copy.deepcopy(head)
    fields = ['teacher', 'mix', 'mix_how', 'temperature', 'relabel', 'x']
    head['meta']['training'][rng.choice(fields)] = rng.choice(odd_values + ['mixup', 'videomix'])
    return head

def edit_tensor(tensors, rng):
    "One tensor dropped, renamed, reshaped, retyped or filled"
    t = dict(tensors)
    k = rng.choice(sorted(t))
    v = t[k].clone()
    how = rng.choice(['drop', 'rename', 'add', 'flat', 'row', 'axis', 'cut', 'empty', 'retype', 'fill', 'entry', 'entry', 'entry', 'swap', 'noise'])
    if how == 'drop': del t[k]
    elif how == 'rename': t[rng.choice(['x', 'frames', 'labels', 'pick', 'place', 'teacher.w', 'decoder.w', 'scorer.w', 'pack0.x', k+'.x'])] = t.pop(k)
    elif how == 'add': t[rng.choice(['x', 'place', 'pick', 'teacher.w', 'decoder.w', 'scorer.head.weight', 'times', 'bits'])] = v
    elif how == 'flat': t[k] = v.reshape(-1)
    elif how == 'row': t[k] = v[None]
    elif how == 'axis' and v.ndim > 1: t[k] = v.transpose(*rng.sample(range(v.ndim), 2)).contiguous()
    elif how == 'cut' and v.ndim: t[k] = v.narrow(rng.randrange(v.ndim), 0, 1).contiguous()
    elif how == 'empty' and v.ndim: t[k] = v[:0]
    elif how == 'retype': t[k] = v.to(rng.choice(list(dtypes)))
    elif how == 'swap': t[k] = t[rng.choice(sorted(t))].clone()
    elif v.numel():
        flat = t[k] = v
        flat = flat.reshape(-1)
        n = flat.numel() if how == 'fill' else 1
        i = rng.sample(range(flat.numel()), n)
        if v.is_floating_point(): flat[i] = rng.choice([float('nan'), float('inf'), -float('inf'), 1e30, -1., 0., 65504.])
        elif v.dtype != torch.bool:
            info = torch.iinfo(v.dtype)
            flat[i] = rng.choice([info.min, info.max, max(info.min, -1), 0, 1, 2, min(info.max, 10**9), min(info.max, 200)])
        t[k] = flat.view(v.shape)
    return t

def edit_outer(outer, rng):
    "The table of tensors changed: sizes, dtypes, offsets, keys that stand twice, deep nests"
    k   = rng.choice(sorted(outer))
    how = rng.choice(['shape', 'huge', 'dtype', 'offset', 'twice', 'deep', 'many', 'nometa', 'type'])
    if how == 'nometa': outer.pop('__metadata__'); return outer
    if how == 'type': outer[k] = rng.choice(odd_values); return outer
    if how == 'many': return outer | {f't{i}': dict(dtype='U8', shape=[0], data_offsets=[0, 0]) for i in range(6000)}
    if how in ('twice', 'deep'):
        text = json.dumps(outer)
        if how == 'twice': return '{'+json.dumps(k)+': '+json.dumps(outer[k])+', '+text[1:]
        return text[:-1]+', "deep": '+'['*10000+']'*10000+'}'
    if k == '__metadata__': outer[k]['more'] = rng.choice(['x', '1']); return outer
    if how == 'shape': outer[k]['shape'] = [rng.choice([1, 0, 2, *outer[k]['shape']]) for _ in range(rng.randrange(6))]
    if how == 'huge': outer[k]['shape'] = [10**9, *outer[k]['shape'][1:]]
    if how == 'dtype': outer[k]['dtype'] = rng.choice([*dtypes.values(), 'F8_E4M3', 'C64', 'U64', 'x'])
    if how == 'offset': outer[k]['data_offsets'] = [rng.choice([0, 1, -1, 10**9, 2**64]), outer[k]['data_offsets'][1]]
    return outer

def mutate(whole, path, rng):
    "Write a changed copy of a file; the name of what was done, and whether the checksum was made anew"
    fresh = rng.random() < .5
    kind  = rng.choice(['flip header', 'flip data', 'header', 'header', 'header', 'training', 'deep', 'twice', 'tensor', 'tensor',
                        'tensor', 'tensor', 'table', 'cut'])
    size  = struct.unpack('<Q', whole[:8])[0]
    if kind in ('flip header', 'flip data', 'cut'):
        b = bytearray(whole)
        if kind == 'cut': b = b[:rng.randrange(len(b))]
        for _ in range(rng.choice([1, 1, 3])):
            lo,hi = (0, 8+size) if kind == 'flip header' else (8+size, len(whole))
            i = rng.randrange(lo, hi)
            if kind != 'cut': b[i] ^= 1 << rng.randrange(8)
        Path(path).write_bytes(bytes(b))
        return kind, False
    source = str(path)+'.whole'
    Path(source).write_bytes(whole)
    head,tensors = read_pieces(source)
    os.unlink(source)
    tensors = {k: v.clone() for k,v in tensors.items()}
    edit,text = (lambda o: o),None
    if kind == 'header': head = edit_header(head, rng)
    elif kind == 'training': head = edit_training(head, rng)
    elif kind == 'tensor': tensors = edit_tensor(tensors, rng)
    elif kind == 'table': edit = lambda o: edit_outer(o, rng)
    elif kind == 'deep':
        spot = rng.choice(['meta', 'classes', 'config'])
        text = json.dumps(head | {spot: '@'}).replace('"@"', ('['*10000+']'*10000) if rng.random() < .5 else '{"a":'*5000+'1'+'}'*5000)
    elif kind == 'twice': text = '{"format": 1, '+json.dumps(head)[1:]
    write_pieces(path, head, tensors, fresh, edit, text)
    return kind, fresh


# ---- what happens

def content(clips):
    "A digest of what a set holds: clips, labels, classes"
    h = hashlib.sha256(json.dumps(clips.classes).encode())
    for o in (clips.clips().float(), clips.labels): h.update(f'{o.dtype} {tuple(o.shape)}'.encode()+o.detach().numpy().tobytes())
    return h.hexdigest()

def use(clips, folder):
    "What later code does with a set: take, save, strips, evaluate, its teacher and scorer"
    n = len(clips)
    repr(clips), clips.hard, clips.take([0]).clips(), clips.take([n-1, 0]).clips(), clips.of_class(0)
    load(clips.save(folder/'again.safetensors'))
    strips(clips.clips([0]).clamp(0, 1), n=4)   # floats may leave [0,1]
    (folder/'again.safetensors').unlink()
    evaluate(clips, clips, 'tiny-damaged', Recipe(epochs=1, batch=2, nets=1), train=clips, device='cpu')
    teacher_of(clips)
    if (scorer := scorer_of(clips)) is not None:
        scorer(clips.clips() if isinstance(scorer, FrameScorer) and 'scorer.normalise.mean' in clips.store else clips.codec.unpack(clips.store))
    clips.export(folder/'videos')

def outcome(path, right, folder):
    "One line for what a file leads to"
    refusal = getattr(saved, 'SetError', ValueError)
    try: clips = load(path)
    except refusal as e: return 'refused at load' if str(path) in str(e) else 'refused at load, file not named'
    except MemoryError: return 'memory: at load'
    except Exception as e: return _failure('at load', e)
    try: now = content(clips)
    except Exception as e: return _failure('at clips()', e)
    try: use(clips, folder)
    except Exception as e: return _failure('in use', e)
    return 'same content' if now == right else 'other content'

def _failure(where, e):
    if isinstance(e, MemoryError) or 'allocate memory' in str(e): return f'memory: {where}'
    if hasattr(saved, 'SetError') and isinstance(e, saved.SetError): return f'SetError {where}'
    if os.environ.get('VCD_SHOW'):
        import traceback; traceback.print_exception(e, file=sys.__stderr__)
    return f'other error {where}: {type(e).__name__}'

def alone(path, right):
    "`outcome` in a process of its own, with limits"
    out,into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(seconds)
            used = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used+memory,)*2)
            with tempfile.TemporaryDirectory() as d: os.write(into, outcome(path, right, Path(d)).encode())
        finally: os._exit(0)
    os.close(into)
    with os.fdopen(out) as f: said = f.read()
    _,status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status): return 'too slow' if os.WTERMSIG(status) == signal.SIGALRM else f'crash by signal {os.WTERMSIG(status)}'
    return said or 'crash without a word'

def run(n, seed=0, show=False):
    "Counts of (checksum, outcome) of `n` changed files"
    torch.set_num_threads(1)
    rng,counts = random.Random(seed),collections.Counter()
    with tempfile.TemporaryDirectory() as d:
        files = {k: o.save(Path(d)/f'{k}.safetensors') for k,o in make_sets().items()}
        right = {k: content(load(v)) for k,v in files.items()}
        for k,v in files.items():
            assert (said := alone(v, right[k])) == 'same content', f'{k} as it is: {said}'
        for i in range(n):
            name,path = rng.choice(sorted(files)),Path(d)/'changed.safetensors'
            kind,fresh = mutate(files[name].read_bytes(), path, rng)
            said = alone(path, right[name])
            counts['made anew' if fresh else 'as it was', said] += 1
            if show and said not in ('refused at load', 'same content'): print(i, name, kind, fresh, said, flush=True)
            path.unlink()
    return counts

def table(counts):
    "The counts as lines of text"
    rows = sorted({o for _,o in counts})
    return '\n'.join([f'{"checksum":44}{"as it was":>10}{"made anew":>10}',
                      *(f'{o:44}{counts["as it was", o]:10}{counts["made anew", o]:10}' for o in rows)])

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=2500, help='changed files')
    p.add_argument('--seed', type=int, default=0, help='of the changes')
    p.add_argument('--show', action='store_true', help='a line for each file that is neither refused nor unchanged')
    a = p.parse_args()
    print(table(run(a.n, a.seed, a.show)))

"""Damaged files of saved sets: what `load` reports, and what happens to the files that it accepts

    python tests/damaged_sets.py --n 2500 --seed 0

One small set of every codec and of every kind of labels and networks is saved, then changed in many ways: bytes
flipped; values of the header removed, retyped, huge, nested; tensors dropped, renamed, reshaped, retyped, filled with
NaN or with numbers out of range. About half of the changed files keep the old checksum, the others get a correct one,
which an attacker can compute. Every file is read in its own process, with a limit of memory and of time.
"""
import argparse, collections, copy, hashlib, json, os, random, resource, signal, struct, sys, tempfile
from contextlib import redirect_stdout
from pathlib import Path

os.environ.update(VCD_QUIET='1', OMP_NUM_THREADS='1')

import torch

import vcd.all   # noqa: F401, fills the registries
import vcd.clips as saved
from vcd.clips import ClipSet, Pixels, codecs, load, weight_entries
from vcd.evaluation.evaluate import evaluate, scorer_of
from vcd.meta import Clips, Making, Meta, SetError, Source, Training
from vcd.methods.vdsd import StaticDynamic, all_pairs
from vcd.models.backbones import FrameScorer, TinyNet
from vcd.models.convnets import new_net, nets
from vcd.selection.coreset import keep_frames
from vcd.show import strips
from vcd.storage.codecs import KeyFrames, Partition
from vcd.storage.latents import encode_clips, repack, train_tiny
from vcd.storage.mosaic import mosaic_clips
from vcd.storage.video_codec import compress_clips
from vcd.training.batches import teacher_of
from vcd.training.recipe import Recipe

memory  = 2**30   # Bytes that reading a file may add to the process
seconds = 60      # Time that reading and using a file may take
dtypes = {torch.uint8: 'U8', torch.int8: 'I8', torch.int16: 'I16', torch.int32: 'I32', torch.int64: 'I64',
          torch.float16: 'F16', torch.bfloat16: 'BF16', torch.float32: 'F32', torch.float64: 'F64', torch.bool: 'BOOL'}


def make_sets():
    "Small sets by name: every codec, and sets with soft labels, a teacher, a scorer, a decoder"
    gen    = torch.Generator().manual_seed(0)
    frames = Pixels().encode(torch.rand(4, 4, 3, 16, 16, generator=gen))
    clips  = Clips(name=['a', 'b', 'c', 'd'], bytes=[10, 20, 30, 40])
    meta   = Meta(Source('toy'), clips, Making(vpc=2, method='random', seconds=.25))
    real   = ClipSet(frames, torch.tensor([0, 0, 1, 1]), ['run', 'sit'], meta=meta)
    x,y    = real.clips(),real.labels
    def of(codec, store, labels=y, meta=meta): return ClipSet(store, labels, real.classes, codec, meta)
    tiny = _train_tiny(x)
    sets = dict(
        pixels=real,
        picked=real.pick([0, 3]),
        repeat=keep_frames(real, 2),
        normalised=of(Pixels('normalised'), Pixels('normalised').encode(x, torch.float16)),
        partition=of(Partition(), Partition().encode(x[:2], [2, 2]), meta=None),
        keyframes=of(KeyFrames(4), KeyFrames(4).encode(x)),
        video=compress_clips(real, crf=30, joined=False),
        joined=compress_clips(real, crf=30, joined=True, frames=2),
        mosaic=mosaic_clips(real, 'h264', crf=30),
        some_of_mosaic=mosaic_clips(real, 'h264', crf=30).take([0, 3]),
        latents=encode_clips(real, 'none', frames=2),
        decoder=encode_clips(real, tiny),
        packed=repack(encode_clips(real, tiny), 'tucker+int8'),
        latents_pca=repack(encode_clips(real, 'none'), 'pca:.1+fp16'))
    sets['static_dynamic'] = of(StaticDynamic(), dict(
        static=real.store['frames'][:2, 0], dynamic=torch.randn(2, 4, 1, 16, 16, generator=gen), pair=all_pairs(1),
        weight=torch.randn(3, 4, 3, 3, 3, generator=gen)/9, bias=torch.zeros(3)), meta=None)
    labels = torch.rand(4, 2, generator=gen).softmax(1)
    soft   = meta.change(clips=clips.change(label=y.tolist()), training=Training(temperature=2.))
    sets['soft'] = of(Pixels(), real.store, labels, soft)
    teacher  = weight_entries('teacher', new_net('tiny-damaged', 2, real.shape).state_dict())
    training = Training('tiny-damaged', 'tsgf', dict(eps=.75, k=2), temperature=4., relabel=True)
    sets['teacher'] = of(Pixels(), real.store | teacher, meta=meta.change(training=training))
    scorer = weight_entries('scorer', FrameScorer((2, 3)).state_dict())
    sets['scorer'] = of(sets['latents'].codec, sets['latents'].store | scorer)
    missing = {*codecs} - {o.codec.name for o in sets.values()}
    assert not missing, f'no set of {missing}; add one here'
    return sets

def _train_tiny(x):
    "A tiny autoencoder, trained without printing"
    with open(os.devnull, 'w') as f, redirect_stdout(f):
        return train_tiny(x.flatten(0, 1), steps=1, width=4, device='cpu')

def tiny_damaged(n_classes, shape): return TinyNet(n_classes, shape, width=3, norm=True)
nets['tiny-damaged'] = tiny_damaged


# ---- the pieces of a file

def read_pieces(path):
    "Header and tensors of a saved set"
    with saved.safe_open(path, 'pt') as f:
        head = json.loads(f.metadata()['vcd'])
        return head, {k: f.get_tensor(k) for k in f.keys()}

def write_pieces(path, head, tensors, fresh, edit=lambda table: table, text=None):
    """Write a file of these pieces without any check

    `fresh`: write a correct checksum; `edit`: function that changes the table of tensors; `text`: header to write
    """
    if fresh and isinstance(head, dict) and 'checksum' in head:
        try: head = dict(head, checksum=saved.checksum(head, tensors))
        except Exception: pass
    data  = b''
    table = {'__metadata__': {'vcd': json.dumps(head) if text is None else text}}
    for k,v in tensors.items():
        new = v.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if v.numel() else b''
        table[k] = dict(dtype=dtypes[v.dtype], shape=list(v.shape), data_offsets=[len(data), len(data)+len(new)])
        data += new
    table   = edit(table)
    written = (table if isinstance(table, str) else json.dumps(table)).encode()
    Path(path).write_bytes(struct.pack('<Q', len(written)) + written + data)


# ---- changes

odd_values = [None, True, False, 0, 1, -1, 2, 3.5, -1e9, 10**9, 2**63, 10**30, float('nan'), float('inf'),
              '', 'x', 'pixels', 'a'*1000, [], {}, [1], [1, 2], [[1]], {'a': 1}, [10**9]*4, '../x', '1']

def places(value, path=()):
    "The paths of all values in JSON"
    if isinstance(value, dict): items = value.items()
    elif isinstance(value, list): items = enumerate(value)
    else: return
    for k,v in items:
        yield path+(k,)
        yield from places(v, path+(k,))

def inner(value, path):
    "The value in JSON at a path"
    for k in path: value = value[k]
    return value

def edit_header(head, rng):
    "One value of the header removed, renamed, doubled or replaced"
    head = copy.deepcopy(head)
    *up,last = rng.choice([o for o in places(head) if o[0] != 'checksum'])
    box = inner(head, up)
    how = rng.choice(['remove', 'replace', 'replace', 'replace', 'scale', 'add', 'double'])
    if how == 'remove': del box[last]
    elif how == 'replace': box[last] = rng.choice(odd_values)
    elif how == 'scale' and isinstance(box[last], (int, float)):
        factor = rng.choice([-1, 1000, 10**9])
        box[last] = box[last]*factor + rng.choice([0, 1])
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

other_names = ['x', 'frames', 'labels', 'pick', 'place', 'teacher.w', 'decoder.w', 'scorer.w', 'pack0.x']
more_names  = ['x', 'place', 'pick', 'teacher.w', 'decoder.w', 'scorer.head.weight', 'times', 'bits']

def edit_tensor(tensors, rng):
    "One tensor dropped, renamed, reshaped, retyped or filled"
    t = dict(tensors)
    k = rng.choice(sorted(t))
    v = t[k].clone()
    how = rng.choice(['drop', 'rename', 'add', 'flat', 'row', 'axis', 'cut', 'empty', 'retype', 'fill',
                      'entry', 'entry', 'entry', 'swap', 'noise'])
    if how == 'drop': del t[k]
    elif how == 'rename': t[rng.choice([*other_names, k+'.x'])] = t.pop(k)
    elif how == 'add': t[rng.choice(more_names)] = v
    elif how == 'flat': t[k] = v.reshape(-1)
    elif how == 'row': t[k] = v[None]
    elif how == 'axis' and v.ndim > 1: t[k] = v.transpose(*rng.sample(range(v.ndim), 2)).contiguous()
    elif how == 'cut' and v.ndim: t[k] = v.narrow(rng.randrange(v.ndim), 0, 1).contiguous()
    elif how == 'empty' and v.ndim: t[k] = v[:0]
    elif how == 'retype': t[k] = v.to(rng.choice(list(dtypes)))
    elif how == 'swap': t[k] = t[rng.choice(sorted(t))].clone()
    elif v.numel(): t[k] = fill_entries(v, how, rng)
    return t

def fill_entries(v, how, rng):
    "Odd numbers in one entry of a tensor, or in all of them"
    flat = v.reshape(-1)
    n = flat.numel() if how == 'fill' else 1
    i = rng.sample(range(flat.numel()), n)
    if v.is_floating_point(): flat[i] = rng.choice([float('nan'), float('inf'), -float('inf'), 1e30, -1., 0., 65504.])
    elif v.dtype != torch.bool:
        low,high = torch.iinfo(v.dtype).min,torch.iinfo(v.dtype).max
        flat[i] = rng.choice([low, high, max(low, -1), 0, 1, 2, min(high, 10**9), min(high, 200)])
    return flat.view(v.shape)

def edit_table(table, rng):
    "The table of tensors changed: sizes, dtypes, offsets, duplicate keys, deep nesting"
    k   = rng.choice(sorted(table))
    how = rng.choice(['shape', 'huge', 'dtype', 'offset', 'twice', 'deep', 'many', 'nometa', 'type'])
    if how in ('twice', 'deep'): return edit_table_text(table, k, how)
    if how == 'many': return table | {f't{i}': dict(dtype='U8', shape=[0], data_offsets=[0, 0]) for i in range(6000)}
    if how == 'nometa': table.pop('__metadata__')
    elif how == 'type': table[k] = rng.choice(odd_values)
    elif k == '__metadata__': table[k]['more'] = rng.choice(['x', '1'])
    elif how == 'shape':
        sizes = [1, 0, 2, *table[k]['shape']]
        table[k]['shape'] = [rng.choice(sizes) for _ in range(rng.randrange(6))]
    elif how == 'huge': table[k]['shape'] = [10**9, *table[k]['shape'][1:]]
    elif how == 'dtype': table[k]['dtype'] = rng.choice([*dtypes.values(), 'F8_E4M3', 'C64', 'U64', 'x'])
    elif how == 'offset': table[k]['data_offsets'] = [rng.choice([0, 1, -1, 10**9, 2**64]), table[k]['data_offsets'][1]]
    return table

def edit_table_text(table, k, how):
    "The JSON of the table with the entry `k` twice, or with deep nesting"
    text = json.dumps(table)
    if how == 'twice': return '{' + json.dumps(k) + ': ' + json.dumps(table[k]) + ', ' + text[1:]
    return text[:-1] + ', "deep": ' + '['*10000 + ']'*10000 + '}'

def nest_header(head, rng):
    "The JSON of the header with deep nesting in one of its entries"
    spot = rng.choice(['meta', 'classes', 'config'])
    text = json.dumps(head | {spot: '@'})
    deep = '['*10000 + ']'*10000 if rng.random() < .5 else '{"a":'*5000 + '1' + '}'*5000
    return text.replace('"@"', deep)

def flip_bytes(whole, kind, rng):
    "The bytes of a file with some bits flipped, or without its end"
    size = struct.unpack('<Q', whole[:8])[0]
    b = bytearray(whole)
    if kind == 'cut': b = b[:rng.randrange(len(b))]
    for _ in range(rng.choice([1, 1, 3])):
        low,high = (0, 8+size) if kind == 'flip header' else (8+size, len(whole))
        i = rng.randrange(low, high)
        if kind != 'cut': b[i] ^= 1 << rng.randrange(8)
    return bytes(b)

def mutate(whole, path, rng):
    "Write a changed copy of a file; returns the kind of change, and whether the checksum is a new one"
    fresh = rng.random() < .5
    kind  = rng.choice(['flip header', 'flip data', 'header', 'header', 'header', 'training', 'deep', 'twice', 'tensor',
                        'tensor', 'tensor', 'tensor', 'table', 'cut'])
    if kind in ('flip header', 'flip data', 'cut'):
        Path(path).write_bytes(flip_bytes(whole, kind, rng))
        return kind, False
    source = Path(f'{path}.whole')
    source.write_bytes(whole)
    head,tensors = read_pieces(source)
    source.unlink()
    tensors = {k: v.clone() for k,v in tensors.items()}
    changes = {}   # Arguments of `write_pieces`
    if kind == 'header': head = edit_header(head, rng)
    elif kind == 'training': head = edit_training(head, rng)
    elif kind == 'tensor': tensors = edit_tensor(tensors, rng)
    elif kind == 'table': changes['edit'] = lambda table: edit_table(table, rng)
    elif kind == 'deep': changes['text'] = nest_header(head, rng)
    elif kind == 'twice': changes['text'] = '{"format": 1, ' + json.dumps(head)[1:]
    write_pieces(path, head, tensors, fresh, **changes)
    return kind, fresh


# ---- results

def content(clips):
    "A digest of what a set holds: clips, labels, classes"
    h = hashlib.sha256(json.dumps(clips.classes).encode())
    for o in (clips.clips().float(), clips.labels):
        h.update(f'{o.dtype} {tuple(o.shape)}'.encode())
        h.update(o.detach().numpy().tobytes())
    return h.hexdigest()

def use(clips, folder):
    "Do with a set what later code does: take, save, show, evaluate, use its teacher and scorer, export"
    n = len(clips)
    repr(clips)
    len(clips.hard)
    clips.take([0]).clips()
    clips.take([n-1, 0]).clips()
    clips.of_class(0)
    load(clips.save(folder/'again.safetensors'))
    strips(clips.clips([0]).clamp(0, 1), n=4)   # floats may leave [0,1]
    (folder/'again.safetensors').unlink()
    evaluate(clips, clips, 'tiny-damaged', Recipe(epochs=1, batch=2, nets=1), train=clips, device='cpu')
    teacher_of(clips)
    scorer = scorer_of(clips)
    if scorer is not None:
        on_frames = isinstance(scorer, FrameScorer) and 'scorer.normalise.mean' in clips.store
        scorer(clips.clips() if on_frames else clips.codec.unpack(clips.store))
    clips.export(folder/'videos')

def outcome(path, right, folder):
    "What a file leads to, in a few words"
    try: clips = load(path)
    except SetError as e: return 'refused at load' if str(path) in str(e) else 'refused at load, file not named'
    except MemoryError: return 'memory: at load'
    except Exception as e: return _failure('at load', e)
    try: now = content(clips)
    except Exception as e: return _failure('at clips()', e)
    try: use(clips, folder)
    except Exception as e: return _failure('in use', e)
    return 'same content' if now == right else 'other content'

def _failure(where, e):
    if isinstance(e, MemoryError) or 'allocate memory' in str(e): return f'memory: {where}'
    if isinstance(e, SetError): return f'SetError {where}'
    if os.environ.get('VCD_SHOW'):
        import traceback
        traceback.print_exception(e, file=sys.__stderr__)
    return f'other error {where}: {type(e).__name__}'

def outcome_alone(path, right):
    "`outcome` in its own process, with limits of memory and time"
    out,into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(seconds)
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            limit = pages*resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            with tempfile.TemporaryDirectory() as d: os.write(into, outcome(path, right, Path(d)).encode())
        finally: os._exit(0)
    os.close(into)
    with os.fdopen(out) as f: result = f.read()
    _,status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status): return result or 'ended without a result'
    number = os.WTERMSIG(status)
    return 'too slow' if number == signal.SIGALRM else f'crash by signal {number}'

def run(n, seed=0, show=False):
    "Counts of (checksum, outcome) for `n` changed files"
    torch.set_num_threads(1)
    rng    = random.Random(seed)
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as d:
        files = {k: o.save(Path(d)/f'{k}.safetensors') for k,o in make_sets().items()}
        right = {k: content(load(v)) for k,v in files.items()}
        for k,v in files.items():
            result = outcome_alone(v, right[k])
            assert result == 'same content', f'{k} without a change: {result}'
        path = Path(d)/'changed.safetensors'
        for i in range(n):
            name = rng.choice(sorted(files))
            kind,fresh = mutate(files[name].read_bytes(), path, rng)
            result = outcome_alone(path, right[name])
            counts['new' if fresh else 'old', result] += 1
            expected = result in ('refused at load', 'same content')
            if show and not expected: print(i, name, kind, fresh, result, flush=True)
            path.unlink()
    return counts

def table(counts):
    "The counts as lines of text"
    results = sorted({o for _,o in counts})
    lines   = [f'{o:44}{counts["old", o]:10}{counts["new", o]:10}' for o in results]
    return '\n'.join([f'{"checksum":44}{"old":>10}{"new":>10}', *lines])

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=2500, help='number of changed files')
    p.add_argument('--seed', type=int, default=0, help='seed of the changes')
    p.add_argument('--show', action='store_true', help='print each file that is neither refused nor unchanged')
    a = p.parse_args()
    print(table(run(a.n, a.seed, a.show)))

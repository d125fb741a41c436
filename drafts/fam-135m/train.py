"""Teaches the FAM of SmolLM2-135M-Instruct to recall a pass key, on a processor.

    python drafts/fam-135m/train.py --text DIR_OF_TXT_FILES --output DIR [--threads 2]

Tokens are read by the frozen base; what is trained is the FAM's own stream: its embeddings and low-rank additions to
q, k, v, o as its latents use them. So blocks can be read once: their keys and values are *recorded*, and every step
trains the FAM's updates on recordings. What a step asks for:
  match      keys and values of five slots = those of the five digits' tokens, in every layer (with these the base answers
             without any training: that is the target);
  attention  of these slots on the digits in the block that tells the key, of all slots on the sink in blocks that do not;
  answer     cross-entropy of the five digits and the full stop, through the frozen base, the question asked anywhere in a block;
  drift      log of what share of itself a latent changes in a block without a key.
FAM queries see the sink's key with a value of zero, so that a slot that looks at the sink alone stays as it is.
Stops and resumes at any time: state is in OUTPUT/state.pt, recordings in OUTPUT/recordings.
"""
from __future__ import annotations
import argparse, json, math, os, time
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file
from torch.nn import functional as Fn
from famcli.checkpoints.registry import load_model
from famcli.tasks.passkey import DESCRIPTION, FILLER, KEY_LINE, QUESTION

bf = torch.bfloat16
L, D, G, W, FF = 30, 576, 3, 64, 1536  # layers, width, key/value heads (of 3 query heads each), head width, feed-forward
SLOTS, KEYED, RANK, SCALE = 16, 11, 16, 2.0  # slots; the first of the five that hold digits; rank; what B A is multiplied by
MATCH_KEYS, ATTEND = 0.5, 0.3
# steps, rows, learning rate (of the embeddings as well), most updates at the end, weight of the sink, answers, lengths of blocks, final rate
PHASES = [
    dict(steps=200, rows=48, rate=3e-3, most=1, sink=0.1, drift=0.0, answer=False, blocks=(64,), end=1.0),
    dict(steps=60, rows=32, rate=3e-3, most=1, sink=0.1, drift=0.0, answer=True, blocks=(64,), end=1.0),
    dict(steps=100, rows=24, rate=2e-3, most=8, sink=0.3, drift=0.0, answer=True, blocks=(64,), end=1.0),
    dict(steps=110, rows=24, rate=1.5e-3, most=24, sink=0.3, drift=0.02, answer=True, blocks=(64, 512), end=1.0),
    dict(steps=400, rows=24, rate=1.5e-3, most=96, sink=1.0, drift=0.05, answer=True, blocks=(64, 512), end=0.04),
]
RECORDED = {64: (1536, 32), 512: (160, 8)}  # blocks of a length, and streams a batch


# --- functions with gradients written out: few calls, and none for what is frozen
class Lin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w): ctx.w = w; return x @ w.t()
    @staticmethod
    def backward(ctx, g): return (g @ ctx.w if ctx.needs_input_grad[0] else None), None
class LowLin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, A, B):
        h = x @ A.t(); ctx.save_for_backward(x, w, A, B, h)
        return (x @ w.t()).addmm_(h, B.t())
    @staticmethod
    def backward(ctx, g):
        x, w, A, B, h = ctx.saved_tensors; dh = g @ B
        return ((g @ w).addmm_(dh, A) if ctx.needs_input_grad[0] else None), None, dh.t() @ x, g.t() @ h
class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        r = x.pow(2).mean(-1, keepdim=True).add_(1e-5).rsqrt_(); ctx.save_for_backward(x, w, r)
        return (x * r).mul_(w).to(bf)
    @staticmethod
    def backward(ctx, g):
        x, w, r = ctx.saved_tensors; g = g.float().mul_(w).mul_(r)
        return g.addcmul_(x, (g * x).mean(-1, keepdim=True).mul_(r * r), value=-1), None
class Attn(torch.autograd.Function):
    """q [n, 3, t, 64], scaled; k, v [n, 3, s, 64]; mask added."""
    @staticmethod
    def forward(ctx, q, k, v, mask):
        p = q @ k.transpose(2, 3)
        if mask is not None: p += mask
        p = torch.softmax(p, -1); ctx.save_for_backward(q, k, v, p)
        return p @ v
    @staticmethod
    def backward(ctx, g):
        q, k, v, p = ctx.saved_tensors
        ds = torch.ops.aten._softmax_backward_data(g @ v.transpose(2, 3), p, -1, bf)
        return ds @ k, ds.transpose(2, 3) @ q, p.transpose(2, 3) @ g, None

def angles(positions):
    a = torch.outer(positions.double(), 100000.0 ** (-torch.arange(0, W, 2, dtype=torch.float64) / W))
    return a.cos().to(bf), a.sin().to(bf)
def turn(x, cs):
    """x [..., 64] by angles that broadcast to [..., 32]"""
    c, s = cs; a, b = x[..., :32], x[..., 32:]
    return torch.cat([a * c - b * s, b * c + a * s], -1)
def causal(before, t):
    m = torch.zeros(t, before + t); m[:, before:] = torch.full((t, t), -1e9).triu(1)
    return m.to(bf).repeat(3, 1)[None, None]

class Memory(torch.nn.Module):
    def __init__(self, base, zero_digit, question):
        super().__init__()
        w = {n: p.detach().float() for n, p in base.named_parameters()}
        g = lambda l, n: w[f'layers.{l}.{n}.weight']
        self.qkv = [torch.cat([g(l, f'attention.{m}_proj') for m in 'qkv']).to(bf) for l in range(L)]
        self.o = [g(l, 'attention.o_proj').to(bf) for l in range(L)]
        self.gu = [torch.cat([g(l, 'ffn.gate_proj'), g(l, 'ffn.up_proj')]).to(bf) for l in range(L)]
        self.dn = [g(l, 'ffn.down_proj').to(bf) for l in range(L)]
        self.n1, self.n2 = [g(l, 'attention_norm') for l in range(L)], [g(l, 'ffn_norm') for l in range(L)]
        self.nf, self.emb = w['norm.weight'], w['embedding.weight']; self.embb = self.emb.to(bf)
        r = torch.Generator().manual_seed(0)
        digits = self.emb[zero_digit:zero_digit + 10]; mean = digits.mean(0); mean = mean * digits.pow(2).mean().sqrt() / mean.pow(2).mean().sqrt()
        self.E = torch.nn.Parameter(torch.stack([self.emb[i] for i in question] + [mean] * 5) + 0.02 * torch.randn(SLOTS, D, generator=r))
        sizes = dict(q=(576, 576), k=(192, 576), v=(192, 576), o=(576, 576))
        self.A = torch.nn.ParameterDict({m: torch.nn.Parameter((torch.rand(L, RANK, i, generator=r) * 2 - 1) * i**-0.5) for m, (_, i) in sizes.items()})
        self.B = torch.nn.ParameterDict({m: torch.nn.Parameter(torch.zeros(L, o, RANK)) for m, (o, _) in sizes.items()})

    def low(self):
        A = torch.cat([self.A[m] for m in 'qkv'], 1)
        B = SCALE * torch.cat([Fn.pad(self.B[m], (j * RANK, (2 - j) * RANK)) for j, m in enumerate('qkv')], 1)
        pair = lambda a, b: list(zip(a.to(bf).unbind(0), b.to(bf).unbind(0)))
        return pair(A, B), pair(self.A['o'], self.B['o'] * SCALE)

    # tokens, frozen
    def rest(self, l, x, mixed):
        x = x + Lin.apply(mixed, self.o[l])
        g, u = Lin.apply(Norm.apply(x, self.n2[l]), self.gu[l]).chunk(2, -1)
        return x + Lin.apply(Fn.silu(g) * u, self.dn[l])
    def tokens(self, l, x, n, t, cs):
        z = Lin.apply(Norm.apply(x, self.n1[l]), self.qkv[l]).view(n, t, 15, W)
        q = (turn(z[:, :, :9], cs) * 0.125).transpose(1, 2).reshape(n, 3, 3 * t, W)
        return z, q, turn(z[:, :, 9:12], cs).transpose(1, 2), z[:, :, 12:].transpose(1, 2)
    @torch.no_grad()
    def record(self, first, later):
        """Reads first and later blocks [n, B] (later ones with the first's sink in sight); by layer: keys and values turned, and raw."""
        n, B = first.shape; x = Fn.embedding(torch.cat([first, later]).flatten(), self.emb)
        c, s = angles(torch.arange(B)); cs = c[:, None], s[:, None]; sp = angles(torch.tensor([-SLOTS - 1]))
        for l in range(L):
            z, q, k, v = self.tokens(l, x, 2 * n, B, cs)
            sink = z[:n, 0, 9:].clone()
            yield torch.cat([k, v], 1), sink, z[:, :, 9:].flatten(2)
            if l == L - 1: return
            m = torch.cat([Attn.apply(q[:n], k[:n], v[:n], causal(0, B)),
                           Attn.apply(q[n:], torch.cat([turn(sink[:, :3], sp)[:, :, None], k[n:]], 2), torch.cat([sink[:, 3:, None], v[n:]], 2), causal(1, B))])
            x = self.rest(l, x, m.view(2 * n, 9, B, W).transpose(1, 2).reshape(-1, D))

    # the FAM
    def slots(self, low, l, f, qa, ka):
        R = f.shape[0]; z = LowLin.apply(Norm.apply(f.reshape(-1, D), self.n1[l]), self.qkv[l], *low[0][l]).view(R, SLOTS, 15, W)
        q = (turn(z[:, :, :9], qa) * 0.125).transpose(1, 2).reshape(R, 3, 3 * SLOTS, W)
        return q, turn(z[:, :, 9:12], ka).transpose(1, 2), z[:, :, 12:].transpose(1, 2), z
    def attended(self, low, l, a, R): return LowLin.apply(a.view(R, 9, SLOTS, W).transpose(1, 2).reshape(-1, D), self.o[l], *low[1][l]).view(R, SLOTS, D)
    def initial(self, low):
        c, s = angles(torch.arange(-SLOTS, 0)); at = c[:, None], s[:, None]; f, out = self.E[None], []
        for l in range(L):
            out.append(f)
            q, k, v, _ = self.slots(low, l, f, at, at)
            f = f + self.attended(low, l, Attn.apply(q, k, v, None), 1)
            g, u = Lin.apply(Norm.apply(f.view(-1, D), self.n2[l]), self.gu[l]).chunk(2, -1)
            f = f + Lin.apply(Fn.silu(g) * u, self.dn[l]).view(f.shape)
        return out
    def evolve(self, low, l, f, sink, blocks, told, places):
        """A layer's FAM through blocks [R, 6, B, 64]; the first begins the stream, block ``told`` tells the key at ``places`` [R, 5, 2].
        Gives (k, v, raw) after 0.. updates, the attention's losses, and the drifts."""
        R, B = sink.shape[0], blocks[0].shape[2]
        (cq, sq), (ck, sk) = angles(torch.arange(B - SLOTS, B)), angles(torch.arange(-SLOTS, 0))
        qa, ka = (cq[:, None], sq[:, None]), (ck[:, None], sk[:, None])
        ks = turn(sink[:, :3], angles(torch.tensor([-SLOTS - 1])))[:, :, None]
        f = f.expand(R, -1, -1); q, k, v, z = self.slots(low, l, f, qa, ka); out = [(k, v, z)]; looks, drifts = [], []
        for t, kv in enumerate(blocks):
            keys, values = torch.cat([ks, k, kv[:, :3]], 2), torch.cat([torch.zeros_like(ks), v, kv[:, 3:]], 2)
            mask = None
            if t == 0:  # the sink is the block's own first token
                mask = torch.zeros(keys.shape[2], dtype=bf); mask[0] = -1e9
                values = values.clone(); values[:, :, 1 + SLOTS] = 0
            some = slice(KEYED, KEYED + 5) if t == told else slice(None)
            qs = q.view(R, 3, 3, SLOTS, W)[:, :, :, some]
            lp = (qs.flatten(2, 3) @ keys.transpose(2, 3)).float()
            if mask is not None: lp = lp + mask.float()
            lp = lp.log_softmax(-1).view(R, 9, -1, keys.shape[2])
            if t == told: looks.append((True, -lp.gather(3, (places + 1 + SLOTS)[:, None].expand(R, 9, 5, 2)).logsumexp(-1).mean()))
            else: looks.append((False, -lp[..., 1 + SLOTS if t == 0 else 0].mean()))
            old, f = f, f + self.attended(low, l, Attn.apply(q, keys, values, mask), R)
            if t != told: drifts.append(((f - old).pow(2).mean((1, 2)) / old.detach().pow(2).mean((1, 2)) + 1e-6).log().mean())
            q, k, v, z = self.slots(low, l, f, qa, ka); out.append((k, v, z))
        return out, looks, drifts

# --- text
class Text:
    def __init__(self, tokenizer, folder):
        self.encode = tokenizer.encode
        e = self.encode; self.desc, self.q = e(DESCRIPTION + '\n'), e(QUESTION)
        self.filler = np.array(e(FILLER) + e(' ' + FILLER) * 200)
        self.text = np.concatenate([np.array(e(p.read_text(errors='ignore')[:1_000_000])) for p in sorted(Path(folder).glob('*.txt'))])
        self.space, self.zero = e(' 0')[0], e(' 0')[1]; self.stop, self.newline = e('.')[0], e('\n')[0]; self.begin = tokenizer.text_start
    def plain(self, rng, n, p):
        if rng.random() < p: i = int(rng.integers(0, len(self.text) - n)); return self.text[i:i + n].tolist()
        i = int(rng.integers(0, 24)); return self.filler[i:i + n].tolist()
    def told(self, rng, B, first, p):
        """A block with a key line whole in it: tokens, digits, places of the digits' two mentions"""
        digits = [self.zero + int(d) for d in rng.integers(0, 10, 5)]; key = ''.join(str(d - self.zero) for d in digits)
        line, rest = self.encode(KEY_LINE.format(key=key) + '\n'), self.plain(rng, B, p)
        head = [] if not first else self.desc if rng.random() < 0.3 and B >= len(self.desc) + len(line) else [self.begin] if rng.random() < 0.5 else [rest[0]]
        room = B - len(head) - len(line); i = 0 if rng.random() < 0.2 else int(rng.integers(0, room + 1))
        block = head + (rest[len(head):len(head) + i - 1] + [self.newline] if i else []); at = len(block); block = (block + line + rest)[:B]
        return block, digits, [[at + 5 + j, at + 15 + j] for j in range(5)]

def recordings(memory, text, B, folder, seed=1):
    path = folder / f'{B}.pt'
    if path.exists(): return torch.load(path, mmap=True)
    count, n = RECORDED[B]; rng = np.random.default_rng((seed, B)); KV, SK, TG = ([[] for _ in range(L)] for _ in range(3)); kinds, digits, places = [], [], []
    for _ in range(0, count, 2 * n):
        rows = [[], []]
        for later in (0, 1):
            for i in range(n):
                b, d, at = text.told(rng, B, not later, 0.6 if B < 512 else 0.3); kind = 2 * later
                if i < (n // 4, n // 2)[later]:  # no key
                    b, kind = ((text.desc if rng.random() < 0.5 and not later else []) + text.plain(rng, B, 0.5))[:B], kind + 1
                rows[later].append(b); kinds.append(kind); digits.append(d); places.append(at)
        at = torch.tensor(places[-2 * n:])[:, :, 0]
        for l, (kv, sink, raw) in enumerate(memory.record(torch.tensor(rows[0]), torch.tensor(rows[1]))):
            KV[l].append(kv); SK[l].append(sink.repeat(2, 1, 1)); TG[l].append(raw.gather(1, at[..., None].expand(-1, -1, 384)))
    made = {n_: torch.stack([torch.cat(x) for x in v]) for n_, v in (('KV', KV), ('SK', SK), ('TG', TG))} | dict(kinds=torch.tensor(kinds), digits=torch.tensor(digits), places=torch.tensor(places))
    folder.mkdir(parents=True, exist_ok=True); torch.save(made, path.with_suffix('.part')); os.replace(path.with_suffix('.part'), path)
    return torch.load(path, mmap=True)

def step_loss(memory, text, rec, norms, phase, most, answer, rng):
    draw = lambda n: round(math.exp(rng.uniform(0, math.log(n)))) - 1 if n > 1 else 0
    before = draw(most) if rng.random() < 0.5 else 0; after = draw(most) if before == 0 or rng.random() < 0.5 else 0
    U = before + 1 + after; R = int(min(phase['rows'], max(4, 192 // U))); B = rec['KV'].shape[3]
    pick = lambda kind: torch.tensor(rng.choice(np.flatnonzero(rec['kinds'].numpy() == kind), R))
    ix = [pick((1 if t == 0 else 3) if t != before else (0 if t == 0 else 2)) for t in range(U)]
    key = ix[before]; times = sorted({before + 1, (before + 1 + U) // 2, U}); ask = sorted({before + 1, U}) if answer else []
    low = memory.low(); f0 = memory.initial(low); loss = torch.zeros(())
    if ask:
        n = R * len(ask); target = torch.cat([rec['digits'][key], torch.full((R, 1), text.stop)], 1).repeat(len(ask), 1)
        ids = torch.cat([torch.tensor([text.q + [text.space]]).expand(n, -1), target[:, :5]], 1); Q = ids.shape[1]
        off = int(rng.integers(0, B - Q)) if rng.random() < 0.5 else int(rng.integers(max(0, B - 80), B - Q + 1)); pre = torch.tensor(rng.choice(np.flatnonzero(rec['kinds'].numpy() == 3), n))
        x = Fn.embedding(ids.flatten(), memory.emb); c, s = angles(torch.arange(off, off + Q)); cs = c[:, None], s[:, None]; mask = causal(1 + SLOTS + off, Q)
    for l in range(L):
        sink = rec['SK'][l][ix[0]]
        out, looks, drifts = memory.evolve(low, l, f0[l], sink, [rec['KV'][l][i] for i in ix], before, rec['places'][key])
        want = rec['TG'][l][key].float()
        for t in times:
            got = out[t][2][:, KEYED:KEYED + 5, 9:].flatten(2).float(); miss = (got - want).pow(2)
            loss = loss + (MATCH_KEYS * miss[..., :192].mean() / norms[l][0] + miss[..., 192:].mean() / norms[l][1]) / len(times)
        for told, look in looks: loss = loss + look * (ATTEND if told else phase['sink'] / len(looks))
        if drifts: loss = loss + phase['drift'] * sum(drifts) / len(drifts)
        if ask:
            ks = turn(sink[:, :3], angles(torch.tensor([-SLOTS - 1])))[:, :, None].repeat(len(ask), 1, 1, 1); vs = sink[:, 3:, None].repeat(len(ask), 1, 1, 1); own = rec['KV'][l][pre][:, :, :off]
            _, q, k, v = memory.tokens(l, x, n, Q, cs)
            m = Attn.apply(q, torch.cat([ks, torch.cat([out[t][0] for t in ask]), own[:, :3], k], 2), torch.cat([vs, torch.cat([out[t][1] for t in ask]), own[:, 3:], v], 2), mask)
            x = memory.rest(l, x, m.view(n, 9, Q, W).transpose(1, 2).reshape(-1, D))
    loss, told = loss / L, None
    if ask:
        y = Norm.apply(x.view(n, Q, D)[:, -6:].reshape(-1, D), memory.nf); z = Lin.apply(y, memory.embb).float()
        ce = Fn.cross_entropy(z, target.flatten()); told = (ce.item(), (z.argmax(-1) == target.flatten()).view(n, 6).all(-1).float().mean().item()); loss = loss + ce
    return loss, told, U

def write(memory, output):
    w = {'fam_embedding': memory.E.detach().clone()}
    for m in 'qkvo':
        for l in range(L):
            w[f'layers.{l}.memory.{m}.down'] = memory.A[m][l].detach().clone(); w[f'layers.{l}.memory.{m}.up'] = (memory.B[m][l].detach() * SCALE).contiguous()
    save_file(w, str(output / 'fam.safetensors'), {'format': 'pt'})
    fields = dict(attention='fam', block_size=512, memory_segments=0, fam_length=SLOTS, sinks=1, fam_keep_initial=True, fam_ffn=False, fam_rank=RANK, fam_null_sink=True)
    (output / 'famcli.json').write_text(json.dumps(dict(format='famcli-adapter', base='full-135m', model=fields), indent=2) + '\n')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--text', required=True); p.add_argument('--output', type=Path, required=True); p.add_argument('--threads', type=int, default=2); o = p.parse_args()
    torch.set_num_threads(o.threads); o.output.mkdir(parents=True, exist_ok=True)
    loaded = load_model('full-135m'); text = Text(loaded.tokenizer, o.text); memory = Memory(loaded.decoder, text.zero, text.q + [text.space])
    recs = {B: recordings(memory, text, B, o.output / 'recordings') for B in RECORDED}
    r = recs[64]; t = r['TG'][:, (r['kinds'] % 2) == 0].float(); norms = [(t[l, ..., :192].var((0, 1)).mean(), t[l, ..., 192:].var((0, 1)).mean()) for l in range(L)]
    params = list(memory.parameters()); opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.97), weight_decay=0); at, done = 0, 0; state = o.output / 'state.pt'
    if state.exists(): s = torch.load(state); memory.load_state_dict(s['memory']); opt.load_state_dict(s['opt']); at, done = s['at'], s['done']
    begun = time.time()
    while at < len(PHASES):
        phase = PHASES[at]; prior = PHASES[at - 1]['most'] if at else 1
        while done < phase['steps']:
            rng = np.random.default_rng((0, at, done)); share = done / phase['steps']
            rate = phase['rate'] * min(1, (done + 1) / 10) * (phase['end'] + (1 - phase['end']) * (1 + math.cos(math.pi * share)) / 2)
            for g in opt.param_groups: g['lr'] = rate
            most = round(prior * (phase['most'] / prior) ** min(1, share / 0.6)); rec = recs[int(rng.choice(phase['blocks']))]
            loss, told, U = step_loss(memory, text, rec, norms, phase, most, phase['answer'] and done % 2 == 1, rng)
            opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(params, 1.0); opt.step(); done += 1
            print(f'phase {at} step {done} loss {loss.item():.3f} updates {U}' + (f' answer {told[0]:.3f} right {told[1]:.2f}' if told else '') + f' {time.time() - begun:.0f}s', flush=True)
            if done % 25 == 0 or done == phase['steps']:
                torch.save(dict(memory=memory.state_dict(), opt=opt.state_dict(), at=at, done=done), o.output / 'state.part'); os.replace(o.output / 'state.part', state); write(memory, o.output)
        at, done = at + 1, 0

if __name__ == '__main__':
    main()

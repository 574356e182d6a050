"Settings that make every dataset, method and training small enough for a test"
from vcd.training.ensemble import Recipe

few = dict(render=dict(per_class=4, test=2, classes=['move_left', 'ring', 'star'], size=64, frames=12),
           frames=4, size=48, sampling='uniform', workers=1)
quick = Recipe(epochs=1, batch=6, nets=2)

def options(
    method,   # A name in `methods`
    steps=1,  # Updates, epochs of a teacher, rounds: what makes its work long
):
    "Hyperparameters with which a method ends within seconds"
    teaching = dict(epochs=steps, batch=6)
    if method.startswith('videocompressa'): return dict(frames=2, steps=steps, autoencoder='tiny')
    if method in ('dm', 'dc', 'dsa', 'dfs', 'dfs_adam'): return dict(steps=steps, batch=4)
    if method in ('tsgf', 'bn', 'sre2l', 'sre2l_frames'): return dict(steps=steps, teaching=teaching)
    if method == 'taught': return dict(autoencoder='tiny', teaching=teaching)
    if method == 'movies_taught': return dict(teaching=teaching) if steps > 1 else {}
    if method == 'dm_latents': return dict(steps=steps, batch=4, autoencoder='tiny')
    if method == 'dm_trained': return dict(steps=steps, batch=4, trained=steps, pool=steps)
    if method == 'mtt': return dict(steps=steps, inner=2, trained=steps-1, pool=steps, lr=100.)
    if method == 'dm+vdsd': return dict(steps=steps, batch=4, static='frames', images=1)
    if method == 'mtt+vdsd':
        return options('mtt', steps) | dict(lr=.02, images=1, static_how=dict(steps=steps, batch=4))
    if method.startswith('david'):
        return dict(steps=steps, batch=4, rounds=1+steps, actions=(2, 4), teaching=teaching)
    return dict(forgetting=dict(epochs=1+steps), grand=dict(epochs=steps, runs=2),
                keyframe=dict(frames=2)).get(method, {})

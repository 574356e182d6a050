"Settings that make every dataset and training small enough for a test"
from vcd.training.recipe import Recipe

few = dict(render=dict(per_class=4, test=2, classes=['move_left', 'ring', 'star'], size=64, frames=12),
           frames=4, size=48, sampling='uniform', workers=1)
quick = Recipe(epochs=1, batch=6, nets=2)

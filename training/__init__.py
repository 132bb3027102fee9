"""Scripts and recipes that train and measure the models of this project."""

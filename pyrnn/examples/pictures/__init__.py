"""Pictures that belong to one example or two; also to be had from `pyrnn.plots`."""
